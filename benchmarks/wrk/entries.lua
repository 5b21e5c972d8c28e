-- As many URLs in turn as the first argument says.
local urls
local count = 0

function init(args)
  urls = tonumber(args[1])
end

function request()
  count = count + 1
  return string.format("GET /c/%d HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n", count % urls)
end
