"""What is for one hop ends here, in both directions; Via counts the hops (RFC 9110, 7.6)."""

from __future__ import annotations

import pytest

from tests.wire.table import GOT, GOT_CLOSING, SEEN, Case, Wire, got, names, refused, request, response, seen


def up(name: str, *lines: bytes, passed: tuple[bytes, ...] = (), got: bytes = GOT, goes_on: bool = True) -> Case:
    return Case(name, request(b"GET /x", *lines), seen(b"GET /x", *passed), got, goes_on=goes_on)


def down(name: str, *lines: bytes, passed: tuple[bytes, ...] = ()) -> Case:
    answer = response(b"200 OK", *lines, b"Content-Length: 2", body=b"ok")
    return Case(name, request(), SEEN, got(b"200 OK", *passed), answer)


CASES = [
    up("keep-alive", b"Connection: keep-alive"),
    up("Keep-Alive", b"Connection: Keep-Alive", b"Keep-Alive: timeout=5"),
    up("close", b"Connection: close", got=GOT_CLOSING, goes_on=False),
    up("close among others", b"Connection: x, CLOSE", b"X: 1", got=GOT_CLOSING, goes_on=False),
    up("close on another line", b"Connection: keep-alive", b"Connection: close", got=GOT_CLOSING, goes_on=False),
    up("closed is not close", b"Connection: closed"),
    up("nothing but commas", b"Connection: , ,,"),
    up("an empty Connection", b"Connection:"),
    up("a nominated field", b"Connection: X-Mine", b"X-Mine: 1", b"X-Yours: 2", passed=(b"x-yours: 2",)),
    up("a nominated field in another case", b"connection: x-MINE", b"X-Mine: 1"),
    up("several nominated", b"Connection: a,,b ,\tc", b"A: 1", b"B: 2", b"C: 3", b"D: 4", passed=(b"d: 4",)),
    up("nominated on two lines", b"Connection: a", b"A: 1", b"Connection: b", b"B: 2"),
    up("nominated before and behind", b"A: 1", b"Connection: a", b"A: 2"),
    up("a cookie cannot be nominated away", b"Connection: cookie", b"Cookie: a=b", passed=(b"cookie: a=b",)),
    up("a field called close", b"Close: 1", passed=(b"close: 1",)),
    up("Proxy-Connection", b"Proxy-Connection: keep-alive"),
    up("Proxy-Connection: close says nothing", b"Proxy-Connection: close"),
    up("Proxy-Authorization", b"Proxy-Authorization: Basic eA=="),
    up("TE", b"TE: gzip"),
    up("Upgrade that Connection does not name", b"Upgrade: websocket"),
    up("HTTP2-Settings and h2c", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
    up("Keep-Alive with an underscore", b"Keep_Alive: 5", b"Proxy_Connection: close"),
    up("X-Forwarded-* cannot be nominated away", b"Connection: x-forwarded-for, x-forwarded-host, via, host"),
    up("Host cannot be nominated away", b"Connection: host"),
    up(
        "Cache-Control cannot be nominated away",
        b"Connection: cache-control",
        b"Cache-Control: no-cache",
        passed=(b"cache-control: no-cache",),
    ),
    up("X-Forwarded-* of strangers", b"X-Forwarded-For: 10.0.0.1", b"X-Forwarded-Proto: https", b"Forwarded: for=1"),
    up("X_Forwarded_For of strangers", b"X_Forwarded_For: 10.0.0.1", b"X-Real_IP: 10.0.0.1"),
    up("Via is added to", b"Via: 1.0 other, HTTP/2 more (x)", passed=(b"via: 1.0 other, HTTP/2 more (x)",)),
    up(
        "a chain of seven",
        b"Via: " + b", ".join([b"1.1 minato"] * 7),
        passed=(b"via: " + b", ".join([b"1.1 minato"] * 7),),
    ),
    up(
        "a long chain of others",
        b"Via: " + b", ".join([b"1.1 other"] * 50),
        passed=(b"via: " + b", ".join([b"1.1 other"] * 50),),
    ),
    refused("a loop", request(b"GET /x", b"Via: " + b", ".join([b"1.1 minato"] * 8)), b"508 Loop Detected"),
    refused("a loop on many lines", request(b"GET /x", *[b"Via: 1.1 Minato (v1)"] * 8), b"508 Loop Detected"),
    refused(
        "a loop with a cookie", request(b"GET /x", *[b"Via: 1.1 minato"] * 8, b"Cookie: a=b"), b"508 Loop Detected"
    ),
    # Responses.
    down("keep-alive from the upstream", b"Connection: keep-alive", b"Keep-Alive: timeout=5"),
    down("close from the upstream is its own", b"Connection: close"),
    down("nominated by the upstream", b"Connection: X-Mine", b"X-Mine: 1", b"X-Yours: 2", passed=(b"x-yours: 2",)),
    down("Proxy-Connection from the upstream", b"Proxy-Connection: close", b"Proxy-Authenticate: Basic"),
    down("an Upgrade that is on offer", b"Upgrade: h2,h2c", b"Connection: Upgrade"),
    down("a Via from the upstream", b"Via: 1.1 other", passed=(b"via: 1.1 other",)),
    down("a long Via from the upstream", b"Via: " + b"1.1 minato," * 20, passed=(b"via: " + b"1.1 minato," * 20,)),
    down("Set-Cookie twice", b"Set-Cookie: a=1", b"Set-Cookie: b=2", passed=(b"set-cookie: a=1", b"set-cookie: b=2")),
    down("TE and Trailer from the upstream", b"TE: trailers", b"Trailer: X"),
    down("an underscored length from the upstream", b"Content_Length: 9", b"Transfer_Encoding: chunked"),
    down("Server is the upstream's own", b"Server: nginx", passed=(b"server: nginx",)),
]


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_hop_by_hop(wire: Wire, case: Case) -> None:
    wire.run(case)
