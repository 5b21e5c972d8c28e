-- A browser's head: twelve fields, a URL and a cookie that never come again.
local fields = "Host: 127.0.0.1\r\n"
  .. "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36\r\n"
  .. "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
  .. "Accept-Language: en-US,en;q=0.5\r\n"
  .. "Accept-Encoding: identity\r\n"
  .. "Referer: http://127.0.0.1/index.html\r\n"
  .. "Sec-Fetch-Dest: document\r\n"
  .. "Sec-Fetch-Mode: navigate\r\n"
  .. "Sec-Fetch-Site: same-origin\r\n"
  .. "Upgrade-Insecure-Requests: 1\r\n"
  .. "Cache-Control: max-age=0\r\n"
local run = os.time()
local count = 0

function request()
  count = count + 1
  return string.format("GET /p/%d?q=%d-%d HTTP/1.1\r\n%sCookie: session=%d-%d; id=%d\r\n\r\n",
    count, run, count * 7919, fields, run, count * 104729, count)
end
