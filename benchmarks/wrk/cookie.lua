-- 1,000 URLs in turn, each time with a cookie that never comes again, not even in the next run.
local fields = "Host: 127.0.0.1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\n"
local run = os.time()
local count = 0

function request()
  count = count + 1
  return string.format("GET /c/%d HTTP/1.1\r\n%sCookie: session=%d-%d\r\n\r\n",
    count % 1000, fields, run, count * 104729)
end
