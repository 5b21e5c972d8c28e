"""Messages that come whole, by the short cuts and without them: the same bytes on both sides, the same records.

Each scene is played three times: with whole messages read at once, with the express codec but piece by piece, and with
the h11 codec. What a scene repeats is known to the tables from its third time on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import pytest

from minato.config.model import Limits
from minato.net.exchange import Exchange
from minato.protocol.express_codec import ExpressClientCodec, ExpressServerCodec
from minato.shared.board import Counter
from tests.net.proxy import Entries, OriginMaker, Proxy, ProxyMaker, hello
from tests.system.harness import Client, OriginConnection, request_bytes
from tests.system.harness.origin import Script

SIGHTS = 4
GET = request_bytes(target=b"/g")
DATE = b"Date: Tue, 14 Nov 2023 22:13:20 GMT"
WHOLE, EXPRESS, GENERAL = "whole", "express", "general"
_ANY_DATE = re.compile(rb"\r\ndate: [^\r]*")


@dataclass
class Told:
    """What one playing of a scene left behind."""

    down: list[bytes] = field(default_factory=list)
    closed: list[bool] = field(default_factory=list)
    up: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    log: list[tuple[Any, ...]] = field(default_factory=list)
    pool: str = ""
    active: list[int] = field(default_factory=list)


Play = Callable[[Proxy, Told], None]
PlayAll = Callable[..., dict[str, Told]]


@pytest.fixture
def wholes(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count what was read whole, so that the scenes are known to take the short cuts."""
    counts = {"requests": 0, "responses": 0}
    read_request, on_response = ExpressServerCodec.read_whole, Exchange.on_whole_response

    def note_request(codec: ExpressServerCodec, data: bytes) -> Any:
        head = read_request(codec, data)
        counts["requests"] += head is not None
        return head

    def note_response(exchange: Exchange, *args: Any) -> None:
        counts["responses"] += 1
        on_response(exchange, *args)

    monkeypatch.setattr(ExpressServerCodec, "read_whole", note_request)
    monkeypatch.setattr(Exchange, "on_whole_response", note_response)
    return counts


@pytest.fixture
def play_all(origin: OriginMaker, proxy: ProxyMaker) -> PlayAll:
    def play_all(script: Script, play: Play, **options: Any) -> dict[str, Told]:
        return {lane: play_once(lane, script, play, **options) for lane in (WHOLE, EXPRESS, GENERAL)}

    def play_once(lane: str, script: Script, play: Play, **options: Any) -> Told:
        told, entries = Told(), Entries()
        with pytest.MonkeyPatch.context() as patch:
            if lane == EXPRESS:
                for codec in (ExpressServerCodec, ExpressClientCodec):
                    patch.setattr(codec, "read_whole", lambda *_: None)
            there = origin(script)
            here = proxy(there, express=lane != GENERAL, access_log=entries, **options)
            play(here, told)
            read_records(here, entries, told)
        told.up = [(one.connection, port_free(one.head, there.port), one.body) for one in there.requests]
        told.pool = port_free(told.pool.encode(), there.port).decode()
        return told

    return play_all


def port_free(data: bytes, port: int) -> bytes:
    return data.replace(b"%d" % port, b"PORT")


def read_records(here: Proxy, entries: Entries, told: Told) -> None:
    context = here.server._context
    told.counters = {
        counter.name: here.counted(counter) for counter in Counter if counter is not Counter.CONNECTIONS_ACTIVE
    }
    told.active = [here.board.active(index) for index in range(len(here.board.upstream_keys))]
    told.pool = here.call(lambda: repr(context.pool))
    for entry in entries.entries:
        alike = replace(entry, duration_s=0.0, wall_s=0.0, upstream="x" if entry.upstream else "", failure="")
        told.log.append(astuple(alike))


def converse(*wires: bytes, methods: Sequence[bytes] = (), times: int = SIGHTS) -> Play:
    """Send requests one after the other on one connection, or on the next one where it was closed."""

    def play(here: Proxy, told: Told) -> None:
        client: Client | None = None
        for _ in range(times):
            for wire in wires:
                if client is None:
                    client = here.client()
                client.send(wire)
                response = client.receive(wire.partition(b" ")[0])
                told.down.append(_ANY_DATE.sub(b"\r\ndate: x", response.raw_head) + b"|" + response.body)
                told.closed.append(response.says_close())
                if response.says_close():
                    assert client.is_closed()
                    client.close()
                    client = None
        if client is not None:
            assert not client.is_closed(0.02), "not a byte behind the last response"
            client.close()

    return play


def answer(response: bytes) -> Script:
    """Send a response in one piece for each request; close behind it where it says so."""

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(response)
            if b"close" in response.partition(b"\r\n\r\n")[0]:
                connection.half_close()
                return

    return script


def assert_alike(told: dict[str, Told]) -> Told:
    assert told[WHOLE] == told[EXPRESS] == told[GENERAL]
    return told[WHOLE]


def without_sizes(told: dict[str, Told]) -> dict[str, Told]:
    """Leave out how many bytes of bodies went to clients."""
    for one in told.values():
        del one.counters[Counter.BYTES_OUT.name]
        one.log = [(*line[:5], *line[6:]) for line in one.log]
    return told


def chunked(body: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", *fields]) + b"\r\n\r\n" + body


REQUESTS = {
    "get": GET,
    "head": request_bytes(b"HEAD", b"/h"),
    "close": request_bytes(target=b"/c", fields=[(b"Connection", b"close")]),
    "old": request_bytes(target=b"/o", version=b"1.0"),
    "old keep": request_bytes(target=b"/o", version=b"1.0", fields=[(b"Connection", b"keep-alive")]),
    "post": request_bytes(b"POST", b"/p", body=b"a=1&b=2"),
    "put nothing": request_bytes(b"PUT", b"/e", body=b""),
    "cookie": request_bytes(fields=[(b"Accept", b"*/*"), (b"Cookie", b"sid=1"), (b"X-After", b"1")]),
}
RESPONSES = {
    "length": hello(),
    "dated": hello(b"hello", DATE),
    "empty": hello(b"", DATE),
    "close": hello(b"hello", DATE, b"Connection: close"),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "204 with length": b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    "204 dated": b"HTTP/1.1 204 No Content\r\n" + DATE + b"\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\n" + DATE + b"\r\n\r\n",
    "304 with length": b"HTTP/1.1 304 Not Modified\r\n" + DATE + b"\r\nContent-Length: 5\r\n\r\n",
    "404": b"HTTP/1.1 404 Nope\r\n" + DATE + b"\r\nContent-Length: 2\r\n\r\nno",
    "503": b"HTTP/1.1 503 \xe4\r\nContent-Length: 2\r\n\r\nno",
    "surplus": hello(b"hello", DATE) + b"x",
    "surplus response": hello(b"hello", DATE) + hello(b"evil", DATE),
    "surplus line": hello(b"hello", DATE) + b"\r\n",
    "204 surplus": b"HTTP/1.1 204 No Content\r\n\r\nx",
    "304 surplus": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1\r\n\r\nx",
    "interim": b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + hello(b"hello", DATE),
    "old": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("request_kind", REQUESTS)
def test_whole_messages_go_through_and_are_recorded_as_any(
    play_all: PlayAll, wholes: dict[str, int], request_kind: str, response: str
) -> None:
    wire = RESPONSES[response]
    if request_kind == "head":
        head, _, _ = wire.rpartition(b"\r\n\r\n") if "interim" in response else wire.partition(b"\r\n\r\n")
        wire = head + b"\r\n\r\n" + (b"x" if "surplus" in response else b"")
    told = assert_alike(play_all(answer(wire), converse(REQUESTS[request_kind])))
    assert len(told.down) == len(told.log) == len(told.up) == SIGHTS
    is_old = request_kind.startswith("old")
    assert (wholes["requests"] == SIGHTS) == (not is_old)
    takes_short_cut = (
        not is_old
        and request_kind != "head"
        and response in (*("length", "dated", "empty", "close", "204 dated", "304", "304 with length", "404", "503"),)
    )
    assert (wholes["responses"] > 0) == takes_short_cut


CHUNKS = {
    "one": b"5\r\nhello\r\n0\r\n\r\n",
    "several": b"5\r\nhello\r\n1\r\n \r\n6\r\nworld!\r\n0\r\n\r\n",
    "none": b"0\r\n\r\n",
    "capital": b"A\r\n0123456789\r\n0\r\n\r\n",
    "small": b"a\r\n0123456789\r\n0\r\n\r\n",
    "zeros": b"00005\r\nhello\r\n000\r\n\r\n",
    "long last": b"5\r\nhello\r\n00\r\n\r\n",
    "extension": b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "last extension": b"5\r\nhello\r\n0;a=b\r\n\r\n",
    "trailer": b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n",
    "surplus": b"5\r\nhello\r\n0\r\n\r\nx",
    "surplus line": b"5\r\nhello\r\n0\r\n\r\n\r\n",
    "an end in the data": b"5\r\n0\r\n\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
}
PLAIN_CHUNKS = ("one", "several", "none", "capital", "small", "an end in the data")


@pytest.mark.parametrize("kind", CHUNKS)
@pytest.mark.parametrize("request_kind", ["get", "close", "post", "old"])
def test_whole_chunked_responses_say_the_same_and_carry_no_extension_or_trailer(
    play_all: PlayAll, wholes: dict[str, int], kind: str, request_kind: str
) -> None:
    told = play_all(answer(chunked(CHUNKS[kind], DATE)), converse(REQUESTS[request_kind]))
    assert len(assert_alike(without_sizes(told)).down) == SIGHTS
    assert (wholes["responses"] > 0) == (kind in PLAIN_CHUNKS and request_kind != "old")


@pytest.mark.parametrize("kind", ["one", "several", "none"])
def test_a_whole_chunked_body_is_counted_and_logged_by_its_payload(play_all: PlayAll, kind: str) -> None:
    told = play_all(answer(chunked(CHUNKS[kind], DATE)), converse(GET))
    assert told[WHOLE].counters == told[GENERAL].counters
    assert told[WHOLE].log == told[GENERAL].log


BAD_CHUNKS = {
    "bare LF in the size": b"5\nhello\r\n0\r\n\r\n",
    "bare LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "bare LF at the end": b"5\r\nhello\r\n0\r\n\n",
    "too long": b"4\r\nhello\r\n0\r\n\r\n",
    "too short": b"6\r\nhello\r\n0\r\n\r\n",
    "sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "space": b"5 \r\nhello\r\n0\r\n\r\n",
    "other bytes for CRLF": b"5\r\nhelloxx0\r\n\r\n",
    "LF CR": b"5\r\nhello\n\r0\r\n\r\n",
    "huge": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "no digits": b"\r\nhello\r\n0\r\n\r\n",
    "framing trailer": b"5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n",
}


@pytest.mark.parametrize("kind", BAD_CHUNKS)
def test_no_chunk_that_is_wrong_goes_on_as_it_is(play_all: PlayAll, kind: str) -> None:
    """Good ones make the head known first; each bad one is refused or cut, and its connection not used again."""
    good, bad = chunked(CHUNKS["one"], DATE), chunked(BAD_CHUNKS[kind], DATE)

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            connection.send(bad if request.target == b"/bad" else good)
            if request.target == b"/bad":
                return

    def play(here: Proxy, told: Told) -> None:
        converse(GET)(here, told)
        with here.client() as client:
            client.send(request_bytes(target=b"/bad", fields=[(b"Connection", b"close")]))
            told.down.append(_ANY_DATE.sub(b"", client.read_to_end()))
        converse(GET)(here, told)

    told = without_sizes(play_all(script, play, retries=0))
    assert told[WHOLE] == told[EXPRESS]
    assert (told[WHOLE].pool, told[WHOLE].up) == (told[GENERAL].pool, told[GENERAL].up)
    assert not told[WHOLE].down[SIGHTS].endswith(b"0\r\n\r\n")


# -- responses in pieces


@pytest.mark.parametrize("wire", [hello(b"hello", DATE), chunked(CHUNKS["several"], DATE)], ids=["length", "chunked"])
def test_a_response_in_two_pieces_is_the_same_wherever_it_is_cut(
    origin: OriginMaker, proxy: ProxyMaker, wholes: dict[str, int], wire: bytes
) -> None:
    """Both pieces are read apart: the second one is only sent once the loop has turned behind the first."""

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            cut = int(request.target[1:])
            connection.send(wire[:cut])
            if 0 < cut < len(wire):
                here.call(lambda: None)
                here.call(lambda: None)
            connection.send(wire[cut:])

    there = origin(script)
    here = proxy(there)
    with here.client() as client:
        for _ in range(3):
            expected = client.request(target=b"/0")
        for cut in range(1, len(wire)):
            response = client.request(target=b"/%d" % cut)
            assert (response.status, response.body) == (200, expected.body)
            assert _ANY_DATE.sub(b"", response.raw_head) == _ANY_DATE.sub(b"", expected.raw_head)
        assert client.request(target=b"/0").body == expected.body
    assert len(there.connections) == 1
    assert wholes["responses"] >= 2


# -- requests with bodies

POST = request_bytes(b"POST", b"/p", body=b"a=1&b=2")
PUT = request_bytes(b"PUT", b"/p", body=b"a=1&b=2")


def echo_body(connection: OriginConnection) -> None:
    while (request := connection.read_request()) is not None:
        connection.send(hello(b"%b %b %b" % (request.method, request.target, request.body), DATE))


@pytest.mark.parametrize("wire", [POST, PUT, request_bytes(b"GET", b"/x", body=b"abc")], ids=["POST", "PUT", "GET"])
def test_a_body_that_comes_with_its_head_goes_on_and_is_counted_as_any(play_all: PlayAll, wire: bytes) -> None:
    told = assert_alike(play_all(echo_body, converse(wire, GET, wire)))
    assert told.counters["BYTES_IN"] == 2 * SIGHTS * len(wire.partition(b"\r\n\r\n")[2])


def test_bodies_pipelined_behind_other_requests_stay_in_order(play_all: PlayAll) -> None:
    wires = [GET + POST, POST + GET, POST + POST + GET + PUT, GET, POST]

    def play(here: Proxy, told: Told) -> None:
        with here.client() as client:
            for _ in range(SIGHTS):
                for wire in wires:
                    client.send(wire)
                    for _ in range(wire.count(b"HTTP/1.1")):
                        told.down.append(client.receive().body)

    told = assert_alike(play_all(echo_body, play))
    get, post, put = b"GET /g ", b"POST /p a=1&b=2", b"PUT /p a=1&b=2"
    assert told.down == [get, post, post, get, post, post, get, put, get, post] * SIGHTS


@pytest.mark.parametrize("wire", [POST, POST[:-7].replace(b"th: 7", b"th: 0")], ids=["body", "empty"])
def test_a_request_in_two_pieces_is_the_same_wherever_it_is_cut(
    origin: OriginMaker, proxy: ProxyMaker, wire: bytes
) -> None:
    there = origin(echo_body)
    here = proxy(there)
    with here.client() as client:
        for _ in range(3):
            client.send(wire)
            expected = client.receive()
        for cut in range(1, len(wire)):
            client.send(wire[:cut])
            here.call(lambda: None)
            here.call(lambda: None)
            client.send(wire[cut:])
            assert client.receive().body == expected.body
    assert len({(request.head, request.body) for request in there.requests}) == 1


def test_surplus_behind_a_whole_body_is_the_next_request(play_all: PlayAll) -> None:
    """A Content-Length that is less than what came must never hand the surplus on as body."""
    wire = request_bytes(b"POST", b"/p", fields=[(b"Content-Length", b"3")]) + b"abc"

    def play(here: Proxy, told: Told) -> None:
        for surplus in (b"", b"", b"", b"x", b"GET / HTTP/1.1\r\n\r\n", b"\r\n"):
            with here.client() as client:
                client.send(wire + surplus)
                told.down.append(client.receive().body)
                if surplus.strip():
                    client.half_close()
                    told.down.append(client.read_to_end()[:20])

    told = play_all(echo_body, play)
    assert told[WHOLE].down == told[GENERAL].down
    assert told[WHOLE].up == told[GENERAL].up
    assert told[WHOLE].down[:3] == [b"POST /p abc"] * 3


@pytest.mark.parametrize("cap", [6, 7, 8])
def test_a_whole_body_over_the_cap_is_refused_as_any_and_the_connection_stays(play_all: PlayAll, cap: int) -> None:
    told = assert_alike(play_all(echo_body, converse(POST, GET), limits=Limits(body_bytes=cap)))
    assert [line[:12] for line in told.down[:2]] == [
        b"HTTP/1.1 413" if cap < 7 else b"HTTP/1.1 200",
        b"HTTP/1.1 200",
    ]
    assert not any(told.closed)


def test_a_whole_body_for_nobody_is_answered_and_the_connection_stays(play_all: PlayAll) -> None:
    told = assert_alike(play_all(echo_body, converse(request_bytes(b"POST", host=b"other", body=b"xyz"), GET)))
    assert told.down[0].startswith(b"HTTP/1.1 404 ")
    assert not any(told.closed)


@pytest.mark.parametrize(
    ("limits", "wire"),
    [
        (Limits(header_bytes=256), request_bytes(fields=[(b"X", b"y" * 300)])),
        (Limits(header_bytes=256), request_bytes(fields=[(b"Cookie", b"y" * 300)])),
        (Limits(header_fields=4), request_bytes(fields=[(b"X-%d" % number, b"") for number in range(4)])),
        (Limits(header_fields=4), request_bytes(fields=[(b"A", b""), (b"B", b""), (b"C", b""), (b"Cookie", b"")])),
        (Limits(target_bytes=16), request_bytes(target=b"/" + b"x" * 16)),
    ],
    ids=["head", "cookie", "fields", "fields with a cookie", "target"],
)
def test_a_whole_request_over_a_limit_is_refused_as_any(play_all: PlayAll, limits: Limits, wire: bytes) -> None:
    """Behind one that is within it and differs in the cookie alone, as far as there is such a one."""
    within = re.sub(rb"Cookie: y+", b"Cookie: y", wire).replace(b"Cookie: \r\n", b"")
    if within == wire:
        within = GET
    told = assert_alike(play_all(echo_body, converse(within, within, within, wire), limits=limits))
    assert {line[:12] for line in told.down[3::4]} <= {b"HTTP/1.1 431", b"HTTP/1.1 414"}
    assert all(told.closed[3::4])


# -- cookies


COOKIE_LINES = {
    "plain": [b"Cookie: a=%d"],
    "no space": [b"Cookie:a=%d"],
    "much space": [b"Cookie: \t a=%d \t "],
    "empty": [b"Cookie:"],
    "spaces only": [b"Cookie:   "],
    "tab inside": [b"Cookie: a=%d\tb"],
    "obs-text": [b"Cookie: a=%d\xff\xe4"],
    "two": [b"Cookie: a=%d", b"Cookie: b=2"],
    "other case": [b"cookie: a=%d"],
    "two cases": [b"cookie: b=2", b"Cookie: a=%d"],
    "inside another value": [b"X-Note: Cookie: a=%d"],
    "of another name": [b"Cookie2: a=%d", b"X-Cookie: b=%d"],
}


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("kind", COOKIE_LINES)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_whatever_the_cookie_and_wherever_it_stands_it_goes_on_alike(
    play_all: PlayAll, wholes: dict[str, int], kind: str, at: int, method: bytes
) -> None:
    wires = []
    for number in range(6):
        lines = [b"Host: test.local", b"X-After: 1", *([b"Content-Length: 3"] if method == b"POST" else [])]
        lines[at:at] = [line.replace(b"%d", b"%d" % number) for line in COOKIE_LINES[kind]]
        wires.append(method + b" / HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + b"abc" * (method == b"POST"))
    told = assert_alike(play_all(echo_body, converse(*wires, times=1)))
    assert len(told.up) == 6
    assert wholes["requests"] == 6


@pytest.mark.parametrize("byte", [b"\x00", b"\x01", b"\x0b", b"\x1f", b"\x7f", b"\r", b"\n", b"\n ", b"\r\n "])
def test_a_cookie_that_no_field_may_hold_is_refused_however_known_its_head_is(play_all: PlayAll, byte: bytes) -> None:
    lines = [(b"X-After", b"1")]
    good = [request_bytes(fields=[(b"Cookie", b"a=%d" % number), *lines]) for number in range(4)]
    bad = [request_bytes(fields=[(b"Cookie", b"a=9" + byte + b"b"), *lines])]
    told = assert_alike(play_all(echo_body, converse(*good, *bad, times=2)))
    assert [line[9:12] for line in told.down] == [b"200"] * 4 + [b"400"] + [b"200"] * 4 + [b"400"]


def test_nothing_a_client_sends_becomes_a_line_of_its_own(origin: OriginMaker, proxy: ProxyMaker) -> None:
    there = origin(echo_body)
    here = proxy(there)
    for number in range(SIGHTS):
        fields = [
            *[(b"Connection", b"close"), (b"Close", b""), (b"Cookie", b"a=%d" % number)],
            (b"X-Smuggled", b"xtransfer-encoding: chunked"),
        ]
        for size in (0, 1, 2, 7):
            fields[1] = (b"Close", b"x" * size)
            with here.client() as client:
                assert client.request(fields=fields).status == 200
    names = [name for request in there.requests for name, _ in request.fields]
    assert set(names) == {
        *(b"host", b"cookie", b"x-smuggled", b"via"),
        *(b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"),
    }
