-- As many hosts in turn as the first argument says; each is that of one service.
local hosts
local count = 0

function init(args)
  hosts = tonumber(args[1])
end

function request()
  count = count + 1
  return string.format("GET /1k HTTP/1.1\r\nHost: s%d.example\r\nAccept: */*\r\n\r\n", count % hosts)
end
