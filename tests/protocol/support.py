"""Driving codecs and the scanner in tests: whole, byte by byte, and with bytes behind the message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from minato.config.model import Limits
from minato.protocol.codec import Signal
from minato.protocol.h11_codec import H11ClientCodec, H11ServerCodec
from minato.protocol.message import RequestHead, ResponseHead

LIMITS = Limits()
Codec = H11ServerCodec | H11ClientCodec


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def splits(data: bytes) -> list[list[bytes]]:
    """The ways in which every parser test feeds its message: whole, and byte by byte."""
    return [[data], bytewise(data)]


def cut_at(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Return the pieces of ``data`` between the cuts (taken modulo its length)."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[left:right] for left, right in pairwise(places)]


def events_of(codec: Codec, pieces: Iterable[bytes]) -> Iterator[Any]:
    """Yield every event but NEED_DATA, after as few bytes as it takes."""
    for piece in pieces:
        codec.feed(piece)
        while (event := codec.next_event()) is not Signal.NEED_DATA:
            yield event
            if event is Signal.END and isinstance(codec, H11ClientCodec):
                break  # the next response needs to be expected first


def read_messages(codec: Codec, pieces: Iterable[bytes]) -> list[tuple[Any, bytes, bool]]:
    """Return ``(head, body, ended)`` of every message in the pieces."""
    messages: list[list[Any]] = []
    for event in events_of(codec, pieces):
        if isinstance(event, RequestHead | ResponseHead):
            messages.append([event, b"", False])
        elif event is Signal.END:
            messages[-1][2] = True
        else:
            messages[-1][1] += event
    return [tuple(message) for message in messages]


def request_codec(limits: Limits = LIMITS) -> H11ServerCodec:
    return H11ServerCodec(limits)


def response_codec(method: bytes = b"GET", upgrade: bytes = b"", limits: Limits = LIMITS) -> H11ClientCodec:
    codec = H11ClientCodec(limits)
    codec.expect_response(method, upgrade)
    return codec


def read_request(data: bytes, limits: Limits = LIMITS) -> RequestHead:
    """Return the head of the first request in ``data``."""
    codec = request_codec(limits)
    codec.feed(data)
    head = codec.next_event()
    assert isinstance(head, RequestHead)
    return head
