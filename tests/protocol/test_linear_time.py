"""Heads full of white space are judged in linear time, both ways and by both codecs: no regex goes over them again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from minato.config.model import Limits
from minato.protocol.express_codec import ExpressClientCodec, ExpressServerCodec
from minato.protocol.field_table import FieldTable, Halves
from minato.protocol.guard import Malformed
from tests.protocol.support import request_codec, response_codec

_SPACES = 32_000  # what the default limit of a head lets through
_ROUNDS = 5  # one in which nothing else got in the way will do
_SLACK = 9.0  # four times the bytes: 4 is linear, 16 is quadratic


def _read_request(head: bytes) -> None:
    codec = request_codec()
    codec.feed(b"GET / HTTP/1.1\r\nHost: a\r\n" + head)
    codec.next_event()


def _read_request_by_express(head: bytes) -> None:
    codec = ExpressServerCodec(Limits(), FieldTable(), Halves(16), Halves(16))
    codec.feed(b"GET / HTTP/1.1\r\nHost: a\r\n" + head)
    codec.next_event()


def _read_response(head: bytes) -> None:
    codec = response_codec()
    codec.feed(b"HTTP/1.1 200 OK\r\n" + head)
    codec.next_event()


def _read_response_by_express(head: bytes) -> None:
    codec = ExpressClientCodec(Limits(), FieldTable(), Halves(16), {})
    codec.expect_response(b"GET", b"")
    codec.feed(b"HTTP/1.1 200 OK\r\n" + head)
    codec.next_event()


def _cpu_s(read: Callable[[bytes], None], head: bytes) -> float:
    """Return the CPU time of this thread that it takes."""
    began_s = time.thread_time()
    with contextlib.suppress(Malformed):
        read(head)
    return time.thread_time() - began_s


@pytest.mark.parametrize("read", [_read_request, _read_request_by_express, _read_response, _read_response_by_express])
@pytest.mark.parametrize("name", [b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"X-Other"])
@pytest.mark.parametrize("value", [b"1%b2", b"1,%b,2", b"%b1", b"1%b", b"%b\x01", b"1%b\x7f"])
def test_white_space_in_a_value_is_judged_in_linear_time(
    read: Callable[[bytes], None], name: bytes, value: bytes
) -> None:
    few, many = (b"%b: %b\r\n\r\n" % (name, value % (b" " * count)) for count in (_SPACES // 4, _SPACES))
    bound_s = _SLACK * min(_cpu_s(read, few) for _ in range(_ROUNDS))
    assert any(_cpu_s(read, many) < bound_s for _ in range(_ROUNDS))
