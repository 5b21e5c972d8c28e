"""How often a request came through a minato, and from when on that is a loop."""

from __future__ import annotations

import pytest

from minato.protocol.fields import Fields
from minato.protocol.guard import Malformed
from minato.protocol.via import MAX_PASSES, is_looping
from tests.protocol.support import read_request


@pytest.mark.parametrize(
    "member", [b"1.1 minato", b"1.0 minato", b"HTTP/1.1 Minato", b"1.1\tminato (v1)", b"2 minato(c)", b"1.1 minato "]
)
def test_passes_count_from_the_limit_on(member: bytes) -> None:
    assert not is_looping([(b"via", b", ".join([member] * (MAX_PASSES - 1)))])
    assert is_looping([(b"via", b", ".join([member] * MAX_PASSES))])
    assert is_looping([(b"via", member)] * MAX_PASSES)
    assert is_looping([(b"via", b"1.1 a, %b, 1.0 b" % member)] * MAX_PASSES)


@pytest.mark.parametrize(
    "member", [b"1.1 minato.example", b"1.1 my-minato", b"1.1 minato:80", b"1.1 other (minato)", b"minato", b"1.1 x"]
)
def test_other_names_do_not_count(member: bytes) -> None:
    assert not is_looping([(b"via", b", ".join([member] * 50))])


def test_no_via_is_no_loop() -> None:
    fields: Fields = [(b"x-via", b"1.1 minato")] * 50
    assert not is_looping(fields)


def test_loop_is_refused_with_508() -> None:
    via = b"Via: 1.1 minato\r\n"
    read_request(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (via * (MAX_PASSES - 1)))
    with pytest.raises(Malformed) as caught:
        read_request(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (via * MAX_PASSES))
    assert caught.value.status == 508
