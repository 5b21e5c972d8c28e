"""A crowd of which everybody has a copy of its own: one response that is whole answers all conditions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.net.gate import Gate
from tests.net.hit_support import MAX_AGE
from tests.net.proxy import Proxy, hello
from tests.system.harness import Client, request_bytes

Crowd = Callable[..., list[Client]]

CROWD = 5
TAG = b'ETag: "new"'
NOT_MODIFIED = b"HTTP/1.1 304 Not Modified\r\n%b\r\n\r\n"


def asking(tag: bytes, *fields: tuple[bytes, bytes]) -> bytes:
    return request_bytes(fields=[(b"If-None-Match", tag), *fields])


def told(clients: list[Client]) -> list[tuple[int, bytes | None]]:
    responses = [client.receive() for client in clients]
    return [(response.status, response.get(b"cache-status")) for response in responses]


def test_a_crowd_with_old_copies_costs_one_request(gate: Gate, crowd: Crowd) -> None:
    clients = crowd(CROWD, asking(b'"old"'))
    assert gate.answer(hello(b"new", MAX_AGE, TAG)).get(b"if-none-match") == b'"old"'
    assert told(clients) == [
        (200, b"minato; fwd=uri-miss; stored; ttl=60"),
        *[(200, b"minato; fwd=uri-miss; collapsed; ttl=60")] * (CROWD - 1),
    ]
    assert gate.is_quiet()


def test_a_crowd_with_copies_that_are_good_costs_two(gate: Gate, crowd: Crowd) -> None:
    """The first is told so by the upstream, as ever; the next fetches what tells all the others so."""
    clients = crowd(CROWD, asking(b'"new"'))
    gate.answer(NOT_MODIFIED % TAG)
    assert clients[0].receive().status == 304
    assert gate.answer(hello(b"new", MAX_AGE, TAG)).get(b"if-none-match") is None
    answers = told(clients[1:])
    assert sorted(status for status, _ in answers) == [200] + [304] * (CROWD - 2)
    assert gate.is_quiet()


def test_what_a_304_says_is_private_is_asked_for_by_each(gate: Gate, crowd: Crowd) -> None:
    clients = crowd(CROWD, asking(b'"new"'))
    for _ in clients:
        assert gate.answer(NOT_MODIFIED % b"Cache-Control: private").get(b"if-none-match") == b'"new"'
    assert {status for status, _ in told(clients)} == {304}


@pytest.mark.parametrize("fields", [[(b"Range", b"bytes=0-1")], [(b"Cache-Control", b"no-cache")]])
def test_who_wants_a_part_or_its_own_answer_is_not_waited_for(
    here: Proxy, gate: Gate, crowd: Crowd, fields: list[tuple[bytes, bytes]]
) -> None:
    clients = crowd(2, asking(b'"new"', *fields))
    for _ in clients:
        gate.answer(NOT_MODIFIED % TAG)
    assert {status for status, _ in told(clients)} == {304}
