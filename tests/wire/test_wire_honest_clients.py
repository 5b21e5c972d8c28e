"""Strictness must not break honest traffic: heads as browsers, tools and libraries send them, passed on to the byte."""

from __future__ import annotations

import pytest

from tests.wire.table import GOT, GOT_CLOSING, OK, Case, Wire, got, names, request, seen

CHROME = [
    b"Connection: keep-alive",
    b"Cache-Control: max-age=0",
    b'sec-ch-ua: "Chromium";v="130", "Google Chrome";v="130", "Not?A_Brand";v="99"',
    b"sec-ch-ua-mobile: ?0",
    b'sec-ch-ua-platform: "Linux"',
    b"Upgrade-Insecure-Requests: 1",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    b"Sec-Fetch-Site: none",
    b"Sec-Fetch-Mode: navigate",
    b"Sec-Fetch-User: ?1",
    b"Sec-Fetch-Dest: document",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Accept-Language: de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7",
    b'Cookie: _ga=GA1.1.1.1; session="a b"; consent={"a":[1,2]}; euro=\xe2\x82\xac',
    b'If-None-Match: W/"abc"',
    b"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
]
FIREFOX = [
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    b"Accept-Language: en-US,en;q=0.5",
    b"Accept-Encoding: gzip, deflate",
    b"DNT: 1",
    b"Sec-GPC: 1",
    b"Connection: keep-alive",
    b"Upgrade-Insecure-Requests: 1",
    b"Priority: u=0, i",
    b"Pragma: no-cache",
    b"Cache-Control: no-cache",
]
SAFARI = [
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    b"Upgrade-Insecure-Requests: 1",
    b"User-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.0 Safari/605.1.15",
    b"Accept-Language: en-GB,en;q=0.9",
    b"Accept-Encoding: gzip, deflate",
    b"Connection: keep-alive",
]
PREFLIGHT = [
    b"Connection: keep-alive",
    b"Accept: */*",
    b"Access-Control-Request-Method: PUT",
    b"Access-Control-Request-Headers: content-type,x-token",
    b"Origin: http://app.test",
    b"Sec-Fetch-Mode: cors",
]
FORM = b"name=J%C3%B6rg&note=a+b%0D%0Ac"
MULTIPART = (
    b'------B\r\nContent-Disposition: form-data; name="f"; filename="\xc3\xa4.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n\r\n------B--\r\n"
)
WEBSOCKET = [
    b"Connection: Upgrade",
    b"Pragma: no-cache",
    b"Cache-Control: no-cache",
    b"Upgrade: websocket",
    b"Origin: http://test.local",
    b"Sec-WebSocket-Version: 13",
    b"Accept-Encoding: gzip, deflate, br",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
]
_HOP = (
    b"connection:",
    b"keep-alive:",
    b"upgrade:",
    b"te:",
    b"http2-settings:",
    b"expect:",
    b"content-length:",
    b"transfer-encoding:",
)


def passed(lines: list[bytes]) -> list[bytes]:
    """The lines that the upstream gets: names in lower case, what is for one hop left out."""
    split = [line.partition(b": ") for line in lines]
    return [name.lower() + b": " + value for name, _, value in split if not (name.lower() + b":").startswith(_HOP)]


def fetch(
    name: str,
    line: bytes,
    lines: list[bytes],
    *,
    more: tuple[bytes, ...] = (),
    got: bytes = GOT,
    answer: bytes = OK,
) -> Case:
    goes_on = b"Connection: close" not in lines
    return Case(name, request(line, *lines), seen(line, *passed(lines), more=more), got, answer, goes_on=goes_on)


def upload(name: str, line: bytes, lines: list[bytes], body: bytes) -> Case:
    framing = b"content-length: %d" % len(body)
    return Case(
        name,
        request(line, *lines, b"Content-Length: %d" % len(body), body=body),
        seen(line, *passed(lines), more=[framing], body=body),
    )


def chunked(name: str, line: bytes, lines: list[bytes], body: bytes) -> Case:
    wire = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return Case(
        name,
        request(line, *lines, b"Transfer-Encoding: chunked", body=wire),
        seen(line, *passed(lines), more=[b"transfer-encoding: chunked"], body=wire),
    )


CASES = [
    fetch("Chrome, a page", b"GET /a/b?c=d&e=%20f", CHROME),
    fetch("Chrome, a preflight", b"OPTIONS /api", PREFLIGHT),
    fetch(
        "Chrome, a range",
        b"GET /video.mp4",
        [b"Range: bytes=0-", b"Accept-Encoding: identity;q=1, *;q=0", b"Connection: keep-alive"],
    ),
    upload(
        "Chrome, a form",
        b"POST /login",
        [b"Connection: keep-alive", b"Content-Type: application/x-www-form-urlencoded", b"Origin: null"],
        FORM,
    ),
    upload(
        "Chrome, a file",
        b"POST /upload",
        [b"Content-Type: multipart/form-data; boundary=----B", b"Connection: keep-alive"],
        MULTIPART,
    ),
    fetch("Chrome, a WebSocket", b"GET /chat", WEBSOCKET, more=(b"connection: upgrade", b"upgrade: websocket")),
    fetch(
        "Chrome, server-sent events",
        b"GET /events",
        [b"Accept: text/event-stream", b"Cache-Control: no-cache", b"Last-Event-ID: 7", b"Connection: keep-alive"],
    ),
    fetch("Firefox, a page", b"GET /", FIREFOX),
    fetch("Firefox, a query of rare characters", b"GET /search?q=[a]|{b}^'c'", FIREFOX),
    fetch(
        "Firefox, a WebSocket",
        b"GET /chat",
        [
            b"Sec-WebSocket-Version: 13",
            b"Connection: keep-alive, Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Key: eA==",
        ],
        more=(b"connection: upgrade", b"upgrade: websocket"),
    ),
    fetch("Safari, a page", b"GET /", SAFARI),
    fetch("curl", b"GET /x", [b"User-Agent: curl/8.10.1", b"Accept: */*"]),
    fetch(
        "curl --http2",
        b"GET /x",
        [
            b"User-Agent: curl/8.10.1",
            b"Accept: */*",
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
        ],
    ),
    fetch(
        "curl --tr-encoding", b"GET /x", [b"User-Agent: curl/8.10.1", b"Accept: */*", b"TE: gzip", b"Connection: TE"]
    ),
    Case(
        "curl through a proxy",
        request(
            b"GET http://test.local/x", b"User-Agent: curl/8.10.1", b"Accept: */*", b"Proxy-Connection: Keep-Alive"
        ),
        seen(b"GET /x", b"user-agent: curl/8.10.1", b"accept: */*"),
    ),
    upload(
        "curl -d",
        b"POST /x",
        [b"User-Agent: curl/8.10.1", b"Accept: */*", b"Content-Type: application/x-www-form-urlencoded"],
        b"a=1",
    ),
    chunked("curl -T -", b"PUT /x", [b"User-Agent: curl/8.10.1", b"Accept: */*"], b"streamed"),
    fetch(
        "curl -I",
        b"HEAD /x",
        [b"User-Agent: curl/8.10.1"],
        got=got(b"200 OK", b"content-length: 2", more=[], body=b""),
        answer=OK[:-2],
    ),
    fetch(
        "wget",
        b"GET /x",
        [b"User-Agent: Wget/1.21.3", b"Accept: */*", b"Accept-Encoding: identity", b"Connection: Keep-Alive"],
    ),
    fetch("Go", b"GET /x", [b"User-Agent: Go-http-client/1.1", b"Accept-Encoding: gzip"]),
    chunked("Go, a stream", b"POST /x", [b"User-Agent: Go-http-client/1.1", b"Accept-Encoding: gzip"], b"streamed"),
    Case(
        "Go, a stream with trailers",
        request(
            b"POST /x",
            b"User-Agent: Go-http-client/1.1",
            b"Transfer-Encoding: chunked",
            b"Trailer: X-Sum",
            body=b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n",
        ),
        seen(
            b"POST /x",
            b"user-agent: Go-http-client/1.1",
            more=[b"trailer: x-sum", b"transfer-encoding: chunked"],
            body=b"1\r\na\r\n0\r\nx-sum: 1\r\n\r\n",
        ),
    ),
    fetch(
        "Java",
        b"GET /x",
        [
            b"Connection: Upgrade, HTTP2-Settings",
            b"HTTP2-Settings: AAEAAEAA",
            b"Upgrade: h2c",
            b"User-Agent: Java-http-client/21",
        ],
    ),
    fetch(
        "Java, the old one",
        b"GET /x",
        [
            b"User-Agent: Java/1.8.0_402",
            b"Accept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",
            b"Connection: keep-alive",
        ],
    ),
    fetch("OkHttp", b"GET /x", [b"Connection: Keep-Alive", b"Accept-Encoding: gzip", b"User-Agent: okhttp/4.12.0"]),
    fetch(
        "Node fetch",
        b"GET /x",
        [
            b"connection: keep-alive",
            b"accept: */*",
            b"accept-language: *",
            b"sec-fetch-mode: cors",
            b"user-agent: node",
            b"accept-encoding: gzip, deflate",
        ],
    ),
    chunked("Node http, a stream", b"POST /x", [b"Content-Type: text/plain", b"Connection: keep-alive"], b"streamed"),
    fetch("Node http, Connection: close", b"GET /x", [b"Connection: close"], got=GOT_CLOSING),
    fetch(
        "Python requests",
        b"GET /x",
        [
            b"User-Agent: python-requests/2.32.3",
            b"Accept-Encoding: gzip, deflate",
            b"Accept: */*",
            b"Connection: keep-alive",
        ],
    ),
    upload(
        "Python requests, JSON",
        b"POST /x",
        [b"User-Agent: python-requests/2.32.3", b"Content-Type: application/json"],
        b'{"a": "\\u00e4"}',
    ),
    chunked(
        "Python requests, a generator",
        b"POST /x",
        [b"User-Agent: python-requests/2.32.3", b"Connection: keep-alive"],
        b"streamed",
    ),
    fetch(
        "Python httpx",
        b"GET /x",
        [
            b"Accept: */*",
            b"Accept-Encoding: gzip, deflate",
            b"Connection: keep-alive",
            b"User-Agent: python-httpx/0.27.2",
        ],
    ),
    fetch(
        "Python aiohttp",
        b"GET /x",
        [b"Accept: */*", b"Accept-Encoding: gzip, deflate", b"User-Agent: Python/3.12 aiohttp/3.10.10"],
    ),
    fetch(
        "Python urllib",
        b"GET /x",
        [b"Accept-Encoding: identity", b"User-Agent: Python-urllib/3.11", b"Connection: close"],
        got=GOT_CLOSING,
    ),
    fetch(
        "Ruby",
        b"GET /x",
        [b"Accept-Encoding: gzip;q=1.0,deflate;q=0.6,identity;q=0.3", b"Accept: */*", b"User-Agent: Ruby"],
    ),
    fetch("wrk", b"GET /x", []),
    fetch(
        "a WebDAV client",
        b"PROPFIND /x",
        [b"Depth: 1", b"Translate: f", b"Destination: http://test.local/y", b'If: <http://test.local/x> (["etag"])'],
    ),
    upload(
        "git push",
        b"POST /repo.git/git-receive-pack",
        [b"User-Agent: git/2.43.0", b"Content-Type: application/x-git-receive-pack-request"],
        b"0000",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_honest_request_is_passed_on(wire: Wire, case: Case) -> None:
    wire.run(case)


@pytest.mark.parametrize("case", CASES[:8], ids=names(CASES[:8]))
def test_honest_request_is_passed_on_the_same_when_it_comes_again(wire: Wire, case: Case) -> None:
    """The express codec knows it by then."""
    for _ in range(3):
        wire.run(case)


def test_apachebench_keeps_its_connection(wire: Wire) -> None:
    sent = request(b"GET /x HTTP/1.0", b"Connection: Keep-Alive", b"User-Agent: ApacheBench/2.3", b"Accept: */*")
    kept = got(more=[b"connection: keep-alive", b"content-length: 2"])
    wire.run(
        Case(
            "ab -k",
            sent * 2,
            seen(b"GET /x", b"user-agent: ApacheBench/2.3", b"accept: */*", via=b"1.0 minato") * 2,
            kept * 2,
        )
    )
