"""Messages as clients and servers send them, and hand-made odd ones of every class where proxies get hurt."""

from __future__ import annotations


def head(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


CHROME = (
    b"Connection: keep-alive",
    b"Cache-Control: max-age=0",
    b'sec-ch-ua: "Chromium";v="128", "Not;A=Brand";v="24", "Google Chrome";v="128"',
    b"sec-ch-ua-mobile: ?0",
    b'sec-ch-ua-platform: "Linux"',
    b"Upgrade-Insecure-Requests: 1",
    b"User-Agent: Mozilla/5.0 (X11; Linux) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36",
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    b"Sec-Fetch-Site: same-origin",
    b"Sec-Fetch-Mode: navigate",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Accept-Language: en-US,en;q=0.9,de;q=0.8",
)
FIREFOX = (
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    b"Accept-Language: de,en-US;q=0.7,en;q=0.3",
    b"Accept-Encoding: gzip, deflate",
    b"DNT: 1",
    b"Connection: keep-alive",
)
SAFARI = (
    b"Accept: */*",
    b"Connection: keep-alive",
    b"User-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/17.5 Safari/605.1.15",
    b"Accept-Language: en-GB,en;q=0.9",
    b"Priority: u=3, i",
)
COMMON_REQUESTS = [
    head(b"GET / HTTP/1.1", b"Host: localhost:8080", b"User-Agent: curl/8.5.0", b"Accept: */*"),
    head(b"HEAD /a HTTP/1.1", b"Host: localhost:8080", b"User-Agent: curl/8.5.0", b"Accept: */*"),
    head(b"GET /1?x=1 HTTP/1.1", b"Host: example.com", *CHROME, b"Cookie: sid=1; theme=dark"),
    head(b"GET /2?x=2 HTTP/1.1", b"Host: example.com", *CHROME, b"Cookie: sid=2; theme=dark"),
    head(b"GET /2?x=2 HTTP/1.1", b"Host: example.com", *CHROME, b"Cookie: sid=3", b'If-None-Match: W/"1"'),
    head(b"GET /f HTTP/1.1", b"Host: example.com", *FIREFOX, b"Cookie: a=b", b"Cookie: c=d", b"TE: trailers"),
    head(b"GET /s.js HTTP/1.1", b"Host: example.com", b"Cookie: first=1", *SAFARI, b"Referer: http://example.com/"),
    head(b"GET /go HTTP/1.1", b"Host: go.test", b"User-Agent: Go-http-client/1.1", b"Accept-Encoding: gzip"),
    head(
        *(b"GET /java HTTP/1.1", b"Connection: Upgrade, HTTP2-Settings", b"Host: java.test", b"Upgrade: h2c"),
        *(b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA", b"User-Agent: Java-http-client/21.0.2"),
    ),
    head(
        b"GET /node HTTP/1.1",
        b"host: node.test",
        b"connection: keep-alive",
        b"accept-language: *",
        b"sec-fetch-mode: cors",
    ),
    head(
        b"GET /py HTTP/1.1", b"Host: py.test", b"User-Agent: python-requests/2.32.3", b"Accept-Encoding: gzip, deflate"
    ),
    head(b"GET /wrk HTTP/1.1", b"Host: 127.0.0.1:8080"),
    head(b"GET /ab HTTP/1.0", b"Connection: Keep-Alive", b"Host: 127.0.0.1:8080", b"User-Agent: ApacheBench/2.3"),
    head(b"GET /old HTTP/1.0"),
    head(b"POST /form HTTP/1.1", b"Host: a", b"Content-Type: application/x-www-form-urlencoded", b"Content-Length: 7")
    + b"a=1&b=2",
    head(b"PUT /empty HTTP/1.1", b"Host: a", b"Content-Length: 0"),
    head(b"DELETE /gone HTTP/1.1", b"Host: a", b"Connection: close"),
    head(b"PATCH /go HTTP/1.1", b"Host: a", b"Transfer-Encoding: chunked", b"User-Agent: Go-http-client/1.1")
    + b"3\r\nabc\r\n0\r\n\r\n",
    head(b"POST /e HTTP/1.1", b"Host: a", b"Expect: 100-continue", b"Content-Length: 3") + b"abc",
    head(b"OPTIONS * HTTP/1.1", b"Host: a", b"Origin: http://b"),
    head(
        *(b"GET /chat HTTP/1.1", b"Host: a", b"Upgrade: websocket", b"Connection: Upgrade"),
        *(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13"),
    ),
]
"""Well-formed requests."""

H = b"Host: a"
ODD_REQUESTS = [
    # Lengths and codings.
    *[
        head(b"POST / HTTP/1.1", H, *lines) + b"hello"
        for lines in [
            (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
            (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
            (b"Content-Length: 5", b"Content-Length: 5"),
            (b"Content-Length: 5", b"Content-Length: 6"),
            (b"Content-Length: 5, 5",),
            (b"Content-Length:",),
            (b"Content-Length: +5",),
            (b"Content-Length: -1",),
            (b"Content-Length: 0x5",),
            (b"Content-Length: 5_0",),
            (b"Content-Length: 5 5",),
            (b"Content-Length: \xb2",),
            (b"Content-Length: 05",),
            (b"Content-Length: " + b"0" * 17 + b"5",),
            (b"Content-Length: " + b"0" * 18 + b"5",),
            (b"Content-Length: " + b"9" * 18,),
            (b"Content-Length: " + b"9" * 25,),
            (b"Content-Length\t: 5",),
            (b"Content-Length : 5",),
            (b"content_length: 5",),
            (b"Transfer-Encoding: chunked, identity",),
            (b"Transfer-Encoding: xchunked",),
            (b"Transfer-Encoding: gzip, chunked",),
            (b"Transfer-Encoding: chunked, chunked",),
            (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
            (b"Transfer-Encoding:",),
            (b"Transfer-Encoding: \x0bchunked",),
            (b"Transfer-Encoding: CHUNKED",),
            (b"Transfer_Encoding: chunked",),
            (b"X: 1\r\n Transfer-Encoding: chunked",),
        ]
    ],
    head(b"POST / HTTP/1.0", H, b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    # Chunks.
    *[
        head(b"POST / HTTP/1.1", H, b"Transfer-Encoding: chunked") + body
        for body in [
            b"5;name=value\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n",
            b"5 ;a\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloworld\r\n0\r\n\r\n",
            b"00000005\r\nhello\r\n000\r\n\r\n",
            b"fffffffffffffffff\r\nhello",
            b"0\r\nContent-Length: 9\r\n\r\n",
            b"0\r\nContent_Length: 9\r\n\r\n",
            b"3\r\nabc\r\n0\r\nX-A: 1\r\nX-B:\t2 \r\nx-a:3\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"0\r\n" + b"X: 1\r\n" * 101 + b"\r\n",
            b"1;%b\r\na\r\n" % (b"x" * 200) * 90 + b"0\r\n\r\n",
            b"0\r\nHost: evil\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        ]
    ],
    # Hosts and targets.
    head(b"GET / HTTP/1.1"),
    head(b"GET / HTTP/1.1", H, b"Host: b"),
    head(b"GET / HTTP/1.1", H, H),
    head(b"GET / HTTP/1.1", b"Host:"),
    head(b"GET / HTTP/1.1", b"Host: a/b"),
    head(b"GET / HTTP/1.1", b"Host: a@b"),
    head(b"GET / HTTP/1.1", b"Host: a b"),
    head(b"GET / HTTP/1.1", b"Host: a, b"),
    head(b"GET / HTTP/1.1", b"Host: a:99999"),
    head(b"GET / HTTP/1.1", b"Host: A.Example:"),
    head(b"GET / HTTP/1.1", b"Host: [::1]:80"),
    head(b"GET / HTTP/1.1", b"Host: \xc3\xa4"),
    head(b"GET http://other.example/x?y HTTP/1.1", H),
    head(b"GET http://other.example HTTP/1.1", H),
    head(b"GET https://other.example/ HTTP/1.1", H),
    head(b"GET //other/x HTTP/1.1", H),
    head(b"GET /a#b HTTP/1.1", H),
    head(b"GET /a\xe4 HTTP/1.1", H),
    head(b"GET /a b HTTP/1.1", H),
    head(b"GET a HTTP/1.1", H),
    head(b"GET * HTTP/1.1", H),
    head(b"CONNECT a:80 HTTP/1.1", H),
    # Lines.
    head(b"GET  / HTTP/1.1", H),
    head(b"GET / HTTP/1.1 ", H),
    head(b"GET / http/1.1", H),
    head(b"GET / HTTP/1.2", H),
    head(b"GET / HTTP/2.0", H),
    head(b"GET /", H),
    head(b"get / HTTP/1.1", H),
    head(b"PROPFIND / HTTP/1.1", H),
    head(b"G@T / HTTP/1.1", H),
    b"\r\n" + head(b"GET /behind-empty-line HTTP/1.1", H),
    b"\r\n\r\n\r\n" + head(b"GET / HTTP/1.1", H),
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n",
    *[
        head(b"GET / HTTP/1.1", H, line)
        for line in [
            *[
                b"X : 1",
                b" X: 1",
                b"X",
                b": 1",
                b"X:",
                b"X: ",
                b"X:\t 1 \t",
                b"X: a\tb",
                b"X: a  b",
                b"X: \xff\x80",
                b"X\xe4: 1",
            ],
            *[
                b"X: a\x00b",
                b"X: a\x0bb",
                b"X: a\x7f",
                b"X: a\r\n\tb",
                b"X: \x85",
                b"X: \xa0",
                b"X\x00: 1",
                b'"X": 1',
                b"X(: 1",
            ],
            *[
                b"Connection: X, close",
                b"Connection: close, keep-alive",
                b"Connection:",
                b"Connection: ,",
                b"Connection: Close",
            ],
            *[b"Connection: cookie", b"Connection: host", b"Connection: upgrade", b"Proxy-Connection: close"],
            *[b"TE: trailers", b"Trailer: X", b"Max-Forwards: 1", b"Max-Forwards: x", b"Content_Length: 5"],
            *[b"Connection: te\r\nTE: trailers", b"Via: " + b"1.1 minato," * 8, b"Via: " + b"1.1 minato," * 7],
            *[b"Upgrade: websocket", b"Expect: 100-continue", b"Expect: x", b"Expect:", b"Keep-Alive: timeout=5"],
            *[
                b"X-Forwarded-For: 10.0.0.1",
                b"X-Forwarded-Host: evil",
                b"X_Forwarded_For: 10.0.0.1",
                b"Forwarded: for=1",
            ],
            *[
                b"Cookie: ",
                b"Cookie: a\x00b",
                b"Cookie : a",
                b"cookie: lower",
                b"Cookie:tight",
                b"Cookie: a=b\r\n folded",
            ],
        ]
    ],
]
"""Requests that are refused, or meant to be read in two ways."""

BODY = b"<html>hello</html>"
NGINX = (
    b"Server: nginx/1.22.1",
    b"Date: Sun, 06 Nov 1994 08:49:37 GMT",
    b"Content-Type: text/html",
    b"Content-Length: 18",
    b"Connection: keep-alive",
    b'ETag: "62b2-1"',
    b"Accept-Ranges: bytes",
)
COMMON_RESPONSES = [
    head(b"HTTP/1.1 200 OK", *NGINX) + BODY,
    head(b"HTTP/1.1 200 OK", *NGINX, b"Set-Cookie: a=1", b"Set-Cookie: b=2") + BODY,
    head(b"HTTP/1.1 304 Not Modified", b"Server: nginx/1.22.1", b'ETag: "62b2-1"'),
    head(b"HTTP/1.1 304 Not Modified", b"ETag: x", b"Content-Length: 18"),
    head(b"HTTP/1.1 204 No Content", b"Date: Sun, 06 Nov 1994 08:49:37 GMT"),
    head(b"HTTP/1.1 404 Not Found", b"content-length: 3", b"Connection: close") + b"no\n",
    head(b"HTTP/1.1 301 Moved Permanently", b"Location: /x/", b"Content-Length: 0"),
    head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", b"Content-Encoding: gzip", b"Vary: Accept-Encoding")
    + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    head(b"HTTP/1.1 200 ", b"transfer-encoding: chunked") + b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
    head(b"HTTP/1.1 200 OK", b"Content-Type: text/plain") + b"until the end",
    head(b"HTTP/1.0 200 OK", b"Server: SimpleHTTP/0.6 Python/3.11.2", b"Content-Length: 5") + b"hello",
    head(b"HTTP/1.0 200 OK", b"Connection: keep-alive", b"Content-Length: 5") + b"hello",
    head(b"HTTP/1.1 100 Continue") + head(b"HTTP/1.1 200 OK", b"Content-Length: 5") + b"hello",
    head(b"HTTP/1.1 103 Early Hints", b"Link: </a>") + head(b"HTTP/1.1 200 OK", b"Content-Length: 5") + b"hello",
    head(b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade") + b"\x81\x05hello",
    head(b"HTTP/1.1 500 Internal Server Error", b"Content-Length: 4") + b"oops",
]
"""Well-formed responses."""

ODD_RESPONSES = [
    *[
        head(b"HTTP/1.1 200 OK", *lines) + b"5\r\nhello\r\n0\r\n\r\n"
        for lines in [
            (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
            (b"Content-Length: 15", b"Content-Length: 15"),
            (b"Content-Length: 15", b"Content-Length: 3"),
            (b"Content-Length: 15, 15",),
            (b"Content-Length: 15 ",),
            (b"Content-Length: +15",),
            (b"Content-Length:",),
            (b"Content-Length : 15",),
            (b"Content-Length: " + b"9" * 20,),
            (b"Transfer-Encoding: gzip, chunked",),
            (b"Transfer-Encoding: chunked, gzip",),
            (b"Transfer-Encoding: identity",),
            (b"Transfer-Encoding: chunked,",),
            (b"Transfer-Encoding: Chunked",),
            (b"Transfer-Encoding: chunked ;q=1",),
            (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
            (b"Transfer-Encoding: chunked", b"Connection: X-A, close"),
            (b"Transfer-Encoding: chunked", b"Upgrade: h2c"),
            (b"Transfer-Encoding: chunked", b"Trailer: X"),
            (b"Transfer-Encoding: chunked", b"Via: 1.1 minato"),
            (b"Transfer-Encoding: chunked", b"X: a\r\n b"),
            (b"Transfer-Encoding: chunked", b"X: a\x00b"),
            (b"Transfer-Encoding: chunked", b"X : a"),
            (b"Transfer-Encoding: chunked", b"Nonsense"),
        ]
    ],
    *[
        head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked") + body
        for body in [
            b"5;x=y\r\nhello\r\n0;z\r\n\r\n",
            b'5;x="a;b"\r\nhello\r\n0\r\nX-Sum: 5\r\nX-B: \r\n\r\n',
            b"5 ;x\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhelloworld\r\n0\r\n\r\n",
            b"4\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"5_0\r\nhello\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b"000000005\r\nhello\r\n0\r\n\r\n",
            b"0000000000000005\r\nhello\r\n0\r\n\r\n",
            b"fffffffffffffff\r\nhello",
            b"ffffffffffffffffff\r\nhello",
            b"00000000\r\n\r\n",
            b"0\r\nX-Sum: 5\r\n\r\n",
            b"0\r\n X: folded\r\n\r\n",
            b"0\r\nX: a\r\n b\r\n\r\n",
            b"0\r\nX : a\r\n\r\n",
            b"0\r\nX: a\x00\r\n\r\n",
            b"0\r\nContent-Length: 9\r\n\r\n",
            b"0\r\nContent-Length: x\r\n\r\n",
            b"0\r\nContent_Length: 9\r\n\r\n",
            b"3\r\nabc\r\n0\r\nX-A: 1\r\nX-B:\t2 \r\nx-a:3\r\n\r\n",
            b"3;e\r\nabc\r\n3\r\nabc\r\n003\r\nabc\r\n0\r\nGrpc-Status: 0\r\n\r\n",
            b"0\r\n" + b"X: 1\r\n" * 100 + b"\r\n",
            b"0\r\n" + b"X: 1\r\n" * 101 + b"\r\n",
            b"1;%b\r\na\r\n" % (b"x" * 200) * 80 + b"0\r\n\r\n",
            b"1;%b\r\na\r\n1\r\nb\r\n" % (b"x" * 200) * 90 + b"0\r\n\r\n",
            b"0\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"0\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"0\r\nConnection: close\r\nHost: x\r\n\r\n",
            b"0\r\n\n",
            b"5;" + b"x" * 300 + b"\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        ]
    ],
    *[
        head(line, b"Content-Length: 5") + b"hello"
        for line in [
            *[
                b"HTTP/1.1 200",
                b"HTTP/1.1 200  two  spaces ",
                b"HTTP/1.1 200 \xe4",
                b"HTTP/1.1 200 a\tb",
                b"HTTP/1.1 200\tOK",
            ],
            *[
                b"HTTP/1.1 600 X",
                b"HTTP/1.1 99 X",
                b"HTTP/1.1 2000 X",
                b"HTTP/1.1  200 OK",
                b"HTTP/1.1 20x OK",
                b"HTTP/1.1 099 X",
            ],
            *[b"HTTP/2.0 200 OK", b"HTTP/1.2 200 OK", b"http/1.1 200 OK", b" HTTP/1.1 200 OK", b"HTTP/1.1 200 a\x00b"],
            *[
                b"HTTP/1.1 205 Reset",
                b"HTTP/1.1 199 Interim",
                b"HTTP/1.1 206 Part",
                b"HTTP/1.1 204 None",
                b"HTTP/1.1 304 Same",
                b"HTTP/1.1 199 X",
            ],
            *[b"HTTP/1.1 101 Switch", b"HTTP/1.1 100 Continue", b"HTTP/1.1 599 X", b"rubbish"],
        ]
    ],
    head(b"HTTP/1.1 204 None", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    head(b"HTTP/1.1 304 Same", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    head(b"HTTP/1.1 204 None", b"Content-Length: 0"),
    head(b"HTTP/1.1 205 Reset", b"Content-Length: 0"),
    head(b"HTTP/1.1 205 Reset", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    head(b"HTTP/1.1 205 Reset"),
    head(b"HTTP/1.1 103 Hints", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    head(b"HTTP/1.1 101 Switch", b"Upgrade: h2c", b"Connection: Upgrade"),
    head(b"HTTP/1.1 101 Switch", b"Upgrade: websocket, h2c", b"Connection: Upgrade"),
    head(b"HTTP/1.1 200 OK"),
    head(b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    b"\r\n" + head(b"HTTP/1.1 200 OK", b"Content-Length: 5") + b"hello",
    head(b"HTTP/1.1 100 Continue") * 70 + head(b"HTTP/1.1 200 OK", b"Content-Length: 0"),
    head(b"HTTP/1.1 200 OK", *[b"X-%d: y" % number for number in range(120)], b"Content-Length: 0"),
]
"""Responses of a hostile upstream, and rare ones."""
