"""Mutations, aware of what HTTP is made of: lines, framing fields, chunk sizes; and bytes for the rest. Seeded."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

_FRAMING = [
    *[
        b"Content-Length: %b" % v
        for v in (b"0", b"1", b"3", b"5", b"+5", b"5 ", b"0x5", b"5, 5", b"", b"005", b"-1", b"5_0")
    ],
    *[
        b"content-length : 5",
        b"Content-Length:5",
        b"Content-Length:\t5",
        b"Content_Length: 5",
        b"Content-Length: \x0b5",
    ],
    *[b"Transfer-Encoding: %b" % v for v in (b"chunked", b"Chunked", b" chunked ", b"xchunked", b"chunked, chunked")],
    *[b"Transfer-Encoding: %b" % v for v in (b"identity", b"gzip, chunked", b"chunked, identity", b"", b'"chunked"')],
    *[b"Transfer-Encoding: %b" % v for v in (b"chunked;q=1", b"chunked,", b",chunked", b"\x0bchunked", b"chunked\x00")],
    *[b"Transfer-Encoding : chunked", b"Transfer-Encoding:\tchunked", b" Transfer-Encoding: chunked"],
    *[b"X: y\nTransfer-Encoding: chunked", b"X: y\rContent-Length: 5", b"X: y\r\n Content-Length: 5", b"TE: trailers"],
]
_OTHER = [
    *[b"Host: test.local", b"Host: other", b"Host:", b"host: test.local", b" Host: x", b"Connection: close"],
    *[
        b"Connection: keep-alive",
        b"Connection: content-length",
        b"Connection: Transfer-Encoding, Host",
        b"Connection: upgrade",
    ],
    *[b"Upgrade: websocket", b"Upgrade: h2c", b"Expect: 100-continue", b"Expect: x", b"Trailer: X", b"Keep-Alive: 5"],
    *[
        b"Max-Forwards: 0",
        b"Max-Forwards: 1",
        b"Via: 1.1 minato",
        b"Range: bytes=0-1",
        b"Age: 5",
        b"NoColon",
        b": empty",
    ],
    *[
        b"X: \x80\xff",
        b"X: a\x00b",
        b"X\x00: y",
        b"X:" + b"y" * 300,
        b"HTTP2-Settings: x",
        b"Proxy-Connection: close",
        b"Date: x",
    ],
]
_CHUNK_LINES = [
    *[
        b"0",
        b"1",
        b"5",
        b"05",
        b"00000000000000000005",
        b"0x5",
        b"+5",
        b"-5",
        b"5;",
        b"5;a=b",
        b'5;a="\r\n',
        b"5 ",
        b" 5",
        b"5\t",
    ],
    *[
        b"g",
        b"",
        b"ffffffffffffffff",
        b"100000005",
        b"5;\n",
        b"5\x00",
        b"A",
        b"a",
        b"5,5",
        b"5_5",
        b"\x0b5",
        b"0;x",
        b"00",
    ],
]
_FIRST_LINES = [
    *[
        b"GET / HTTP/1.1",
        b"GET /x HTTP/1.0",
        b"POST / HTTP/1.1",
        b"HEAD / HTTP/1.1",
        b"get / HTTP/1.1",
        b"GET  / HTTP/1.1",
    ],
    *[
        b"GET / HTTP/1.2",
        b"GET / HTTP/2.0",
        b"GET /",
        b"GET\t/ HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET / http/1.1",
    ],
    *[
        b"GET http://test.local/a HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT test.local:80 HTTP/1.1",
        b"TRACE / HTTP/1.1",
    ],
    *[
        b"GET /a b HTTP/1.1",
        b"GET /\x80 HTTP/1.1",
        b"GET / HTTP/1.11",
        b"G\x00T / HTTP/1.1",
        b"GET /# HTTP/1.1",
        b"M-SEARCH * HTTP/1.1",
    ],
    *[b"GET /../a HTTP/1.1", b"GET /%2e%2e/%00 HTTP/1.1", b"PRI * HTTP/2.0", b"PURGE / HTTP/1.1", b"GET //a HTTP/1.1"],
]
_STATUS_LINES = [
    *[
        b"HTTP/1.1 200 OK",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 304 Not Modified",
        b"HTTP/1.1 100 Continue",
    ],
    *[
        b"HTTP/1.1 103 Early Hints",
        b"HTTP/1.1 101 Switching Protocols",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 ",
        b"HTTP/1.1  200 OK",
    ],
    *[
        b"HTTP/1.1 205 Reset",
        b"HTTP/1.1 206 Partial",
        b"HTTP/1.1 99 X",
        b"HTTP/1.1 600 X",
        b"HTTP/1.1 2000 X",
        b"HTTP/2 200 OK",
    ],
    *[
        b"HTTP/1.2 200 OK",
        b"http/1.1 200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 +200 OK",
        b"HTTP/1.1 200 O\x00K",
        b" HTTP/1.1 200 OK",
    ],
]
_BITS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b'"',
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"\n\n",
    b"\r\r\n",
    b"\x0b",
    b"\xff",
]
_SMUGGLED = [
    b"GET /smuggled HTTP/1.1\r\nHost: test.local\r\n\r\n",
    b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: test.local\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
]

_Change = Callable[[random.Random, bytes], bytes]


def mutate_request(rng: random.Random, wire: bytes) -> bytes:
    """Change requests in one to four places."""
    return _mutate(rng, wire, _FIRST_LINES)


def mutate_response(rng: random.Random, wire: bytes) -> bytes:
    """Change responses in one to four places."""
    return _mutate(rng, wire, _STATUS_LINES)


def cut(rng: random.Random, wire: bytes) -> tuple[bytes, ...]:
    """Cut into pieces at random points: often none, seldom every byte by itself."""
    chance = rng.random()
    if chance < 0.5 or len(wire) < 2:
        return (wire,)
    if chance > 0.97 and len(wire) < 500:
        return tuple(wire[at : at + 1] for at in range(len(wire)))
    places = sorted({0, *(rng.randrange(1, len(wire)) for _ in range(rng.randint(1, 4))), len(wire)})
    return tuple(wire[a:b] for a, b in pairwise(places))


def _mutate(rng: random.Random, wire: bytes, first_lines: list[bytes]) -> bytes:
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 4])):
        kind = rng.random()
        if kind < 0.08:
            wire = _replace_line(rng, wire, rng.choice(first_lines), first=True)
        elif kind < 0.6:
            wire = rng.choice(_LINE_CHANGES)(rng, wire)
        else:
            wire = rng.choice(_BYTE_CHANGES)(rng, wire)
    return wire[:65_536]


def _line_places(wire: bytes) -> list[int]:
    """Return where lines begin."""
    places, at = [0], wire.find(b"\r\n")
    while at >= 0:
        places.append(at + 2)
        at = wire.find(b"\r\n", at + 2)
    return places


def _replace_line(rng: random.Random, wire: bytes, line: bytes, *, first: bool = False) -> bytes:
    at = 0 if first else rng.choice(_line_places(wire))
    end = wire.find(b"\r\n", at)
    return wire[:at] + line + (wire[end:] if end >= 0 else b"")


def _insert_line(rng: random.Random, wire: bytes, line: bytes) -> bytes:
    at = rng.choice(_line_places(wire))
    return wire[:at] + line + b"\r\n" + wire[at:]


def _insert_framing(rng: random.Random, wire: bytes) -> bytes:
    return _insert_line(rng, wire, rng.choice(_FRAMING))


def _insert_other(rng: random.Random, wire: bytes) -> bytes:
    return _insert_line(rng, wire, rng.choice(_OTHER))


def _replace_by_framing(rng: random.Random, wire: bytes) -> bytes:
    return _replace_line(rng, wire, rng.choice(_FRAMING))


def _replace_by_chunk(rng: random.Random, wire: bytes) -> bytes:
    return _replace_line(rng, wire, rng.choice(_CHUNK_LINES))


def _insert_chunk(rng: random.Random, wire: bytes) -> bytes:
    return _insert_line(rng, wire, rng.choice(_CHUNK_LINES))


def _double_line(rng: random.Random, wire: bytes) -> bytes:
    at = rng.choice(_line_places(wire))
    end = wire.find(b"\r\n", at) + 2
    return wire[:end] + wire[at:] if end > 1 else wire


def _delete_line(rng: random.Random, wire: bytes) -> bytes:
    at = rng.choice(_line_places(wire))
    end = wire.find(b"\r\n", at) + 2
    return wire[:at] + wire[end:] if end > 1 else wire


def _change_line_end(rng: random.Random, wire: bytes) -> bytes:
    at = rng.choice(_line_places(wire))
    if at < 2:
        return wire
    return wire[: at - 2] + rng.choice([b"\n", b"\r", b"\r\r\n", b"\n\r", b" \r\n", b"\t\r\n", b"\0\r\n"]) + wire[at:]


def _append_smuggled(rng: random.Random, wire: bytes) -> bytes:
    return wire + rng.choice(_SMUGGLED)


def _insert_bits(rng: random.Random, wire: bytes) -> bytes:
    at = rng.randrange(len(wire) + 1)
    return wire[:at] + rng.choice(_BITS) + wire[at:]


def _delete_bytes(rng: random.Random, wire: bytes) -> bytes:
    at = rng.randrange(len(wire) + 1)
    return wire[:at] + wire[at + rng.choice([1, 1, 2, 4, 20]) :]


def _change_byte(rng: random.Random, wire: bytes) -> bytes:
    at = rng.randrange(len(wire) + 1)
    return wire[:at] + bytes([rng.randrange(256)]) + wire[at + 1 :]


def _repeat_bytes(rng: random.Random, wire: bytes) -> bytes:
    at = rng.randrange(len(wire) + 1)
    return wire[:at] + wire[at : at + rng.randint(1, 40)] * rng.choice([1, 1, 2, 50]) + wire[at:]


def _truncate(rng: random.Random, wire: bytes) -> bytes:
    return wire[: rng.randrange(len(wire) + 1)]


def _change_case(rng: random.Random, wire: bytes) -> bytes:
    at = rng.randrange(len(wire) + 1)
    return wire[:at] + wire[at : at + 8].swapcase() + wire[at + 8 :]


_LINE_CHANGES: list[_Change] = [
    *[
        _insert_framing,
        _insert_framing,
        _insert_other,
        _insert_other,
        _replace_by_framing,
        _replace_by_chunk,
        _insert_chunk,
    ],
    *[_double_line, _delete_line, _change_line_end, _append_smuggled],
]
_BYTE_CHANGES: list[_Change] = [
    _insert_bits,
    _insert_bits,
    _delete_bytes,
    _change_byte,
    _repeat_bytes,
    _truncate,
    _change_case,
]
