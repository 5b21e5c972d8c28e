"""The fuzzer's own eyes: a proxy that read, passed on or answered otherwise would be found out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from minato.protocol import chunked, guard, render
from tests.fuzzing import h11_reader, llhttp_reader, plain_reader
from tests.fuzzing.campaign import minimise, probe, verdict
from tests.fuzzing.cases import Answer, RequestCase, ResponseCase
from tests.fuzzing.rig import Rig, Seen
from tests.fuzzing.verdicts import judge

GET = b"GET /%b HTTP/1.1\r\nHost: test.local\r\n\r\n"
CODED = b"POST / HTTP/1.1\r\nHost: test.local\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nbody of IDIDID"


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig(express=False) as rig:
        yield rig


def doctored(seen: Seen, change: Callable[[bytes], bytes]) -> Seen:
    """Return what would have been seen, had the upstream got other bytes."""
    return replace(seen, upstreams=tuple(replace(one, received=change(one.received)) for one in seen.upstreams))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + GET % b"smuggled",
        lambda data: data.replace(b"/b", b"/c"),
        lambda data: data[: data.index(b"GET /b")],
        lambda data: data.replace(b"\r\nhost", b"\nhost", 1),
        lambda data: data.replace(b"host:", b"host :", 1),
        lambda data: data.replace(b"host:", b"content-length: 0\r\ncontent-length: 0\r\nhost:", 1),
        lambda data: data.replace(b"host:", b"transfer-encoding: chunked\r\nhost:", 1),
        lambda data: data.replace(b"host:", b"x: y\r\n z\r\nhost:", 1),
        lambda data: data.replace(b"\r\n\r\n", b"\r\ncontent-length: 4\r\n\r\nabcd", 1),
        lambda data: data[:-1],
    ],
)
def test_other_bytes_at_the_upstream_are_found_out(rig: Rig, change: Callable[[bytes], bytes]) -> None:
    seen = rig.run(RequestCase((GET % b"a" + GET % b"b",)))
    assert judge(seen) == []
    assert judge(doctored(seen, change)) != []


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        lambda data: data[: data.rindex(b"HTTP/1.1")],
        lambda data: data.replace(b"200 OK", b"204 OK", 1),
        lambda data: data.replace(b"content-length: ", b"content-length: +", 1),
        lambda data: data[:-4],
        lambda data: data[data.rindex(b"HTTP/1.1") :] + data[: data.rindex(b"HTTP/1.1")],
        lambda data: b"",
    ],
)
def test_other_bytes_at_the_client_are_found_out(rig: Rig, change: Callable[[bytes], bytes]) -> None:
    seen = rig.run(RequestCase((GET % b"a" + GET % b"b",)))
    assert judge(seen) == []
    assert judge(replace(seen, client=change(seen.client))) != []


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        lambda data: data[: data.rindex(b"HTTP/1.1")],
        lambda data: data.replace(b"body of", b"evil of", 1),
        lambda data: data.replace(b"200 OK", b"201 OK", 1),
        lambda data: data.replace(b"content-length: 14", b"content-length: 13", 1),
        lambda data: b"",
    ],
)
def test_a_response_that_the_origin_did_not_give_is_found_out(rig: Rig, change: Callable[[bytes], bytes]) -> None:
    seen = rig.run(ResponseCase((b"GET", b"GET"), (Answer((OK,)), Answer((OK,)))))
    assert judge(seen) == []
    assert judge(replace(seen, client=change(seen.client))) != []


def test_a_guard_that_takes_folded_lines_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    case = RequestCase((b"GET / HTTP/1.1\r\nHost: test.local\r\nX: a\r\n b\r\n\r\n",))
    assert verdict(case, express=False) == []
    monkeypatch.setattr(guard, "check_head", lambda head: None)
    assert verdict(case, express=False) != []


def test_a_renderer_that_echoes_both_framings_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    case = RequestCase((CODED,))
    assert verdict(case, express=False) == []
    monkeypatch.setattr(render, "_framing_line", lambda *_: b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n")
    assert verdict(case, express=False) != []


def test_a_scanner_that_takes_anything_for_an_extension_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;\r\nhello\r\n0\r\n\r\n"
    case = ResponseCase((b"GET",), (Answer((wire,)),))
    assert verdict(case, express=False) == []
    monkeypatch.setattr(chunked, "_SIZE_LINE", chunked.re.compile(rb"([0-9A-Fa-f]{1,15})(?:;.*)?"))
    assert verdict(case, express=False) != []


def test_a_response_of_another_request_is_found_out(rig: Rig) -> None:
    seen = rig.run(ResponseCase((b"GET", b"GET"), (Answer((OK,)), Answer((OK,)))))
    first, second = seen.ids
    swapped = seen.client.replace(first, b"------").replace(second, first).replace(b"------", second)
    assert judge(seen) == []
    assert any("holds bytes of that to" in line for line in judge(replace(seen, client=swapped)))


def test_a_bug_in_the_log_is_found_out(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minato.net.exchange.forward_response_lines", lambda *_: 1 / 0)
    assert any("ZeroDivisionError" in line for line in judge(rig.run(RequestCase((GET % b"a",)))))
    monkeypatch.undo()
    assert probe(rig) == []


def test_a_case_is_made_as_small_as_it_can_be() -> None:
    case = RequestCase((b"some bytes, ", b"of which X and ", b"Y matter"))
    assert minimise(case, lambda one: b"X" in one.wire and b"Y" in one.wire).wire == b"XY"


@pytest.mark.parametrize("read", [plain_reader.read_requests, llhttp_reader.read_requests, h11_reader.read_requests])
def test_every_reader_counts_and_cuts_requests_by_itself(read: Callable[[bytes], object]) -> None:
    reading = read(CODED + GET % b"a" + CODED[:-3])
    assert [(message.start, message.body, message.complete) for message in reading.messages] == [  # type: ignore[attr-defined]
        ((b"POST", b"/"), b"hello", True),
        ((b"GET", b"/a"), b"", True),
        ((b"POST", b"/"), b"hello", False),
    ]


@pytest.mark.parametrize("read", [plain_reader.read_responses, llhttp_reader.read_responses, h11_reader.read_responses])
def test_every_reader_counts_and_cuts_responses_by_itself(read: Callable[..., object]) -> None:
    wire = b"HTTP/1.1 103 X\r\nA: b\r\n\r\n" + OK + b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + OK[:-1]
    reading = read(wire, [b"GET", b"HEAD", b"GET"], ends=True)
    assert [(message.start, message.body, message.complete) for message in reading.messages] == [  # type: ignore[attr-defined]
        ((103,), b"", True),
        ((200,), b"body of IDIDID", True),
        ((200,), b"", True),
        ((200,), b"body of IDIDI", False),
    ]
