"""What a block of fields says to the express codec: how its message is framed, or that h11 is to read it."""

from __future__ import annotations

import re
from typing import Final, Literal

from minato.protocol.fields import (
    CODING,
    CONNECTION,
    COUNT,
    EXPECT,
    HOST,
    LENGTH,
    RARE,
    UPGRADE,
    VIA,
    FieldBlock,
    first_value,
    is_plain_connection,
    list_members,
)
from minato.protocol.guard import Malformed
from minato.protocol.message import Framing
from minato.protocol.target import check_authority
from minato.protocol.via import is_looping

_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_REQUEST_EXCEPTIONS: Final = COUNT * (CODING | EXPECT | UPGRADE | RARE)
_RESPONSE_EXCEPTIONS: Final = COUNT * (UPGRADE | RARE)
_ANY_CONNECTION: Final = COUNT * CONNECTION
_ANY_LENGTH: Final = COUNT * LENGTH
_ANY_VIA: Final = COUNT * VIA
_ANY_CODING: Final = COUNT * CODING


class RequestFacts:
    """What a block of request fields says, if it is of the common shape."""

    __slots__ = ("framing", "host", "keep_alive", "length_bytes")

    def __init__(self, host: bytes, keep_alive: bool, length: bytes | None) -> None:
        self.host = host
        self.keep_alive = keep_alive
        self.framing = Framing.NONE if length is None else Framing.LENGTH
        self.length_bytes = 0 if length is None else int(length)


class ResponseFacts:
    """What a block of response fields says, if it is of the common shape."""

    __slots__ = ("framing", "keep_alive", "length_bytes")

    def __init__(self, keep_alive: bool, framing: Framing, length_bytes: int) -> None:
        self.keep_alive = keep_alive
        self.framing = framing
        self.length_bytes = length_bytes


def read_request_facts(block: FieldBlock) -> RequestFacts | bool:
    """Return what the fields of a request say, False where the h11 codec is to read them."""
    roles = block.roles
    if roles & _REQUEST_EXCEPTIONS or roles & (COUNT * HOST) != HOST:
        return False
    length = _read_length(block)
    if length is False or not is_plain_connection(block.fields) or (roles & _ANY_VIA and is_looping(block.fields)):
        return False
    try:
        host = check_authority(first_value(block.fields, b"host") or b"")
    except Malformed:
        return False
    keep_alive = not roles & _ANY_CONNECTION or b"close" not in list_members(block.fields, b"connection")
    return RequestFacts(host, keep_alive, length)


def read_response_facts(block: FieldBlock) -> ResponseFacts | bool:
    """Return what the fields of a response say, False where the h11 codec is to read them."""
    roles = block.roles
    if roles & _RESPONSE_EXCEPTIONS or not is_plain_connection(block.fields):
        return False
    length = _read_length(block)
    if length is False:
        return False
    keep_alive = not roles & _ANY_CONNECTION or b"close" not in list_members(block.fields, b"connection")
    if roles & _ANY_CODING:
        if length is not None or roles & _ANY_CODING != CODING:
            return False
        if first_value(block.fields, b"transfer-encoding") != b"chunked":
            return False
        return ResponseFacts(keep_alive, Framing.CHUNKED, 0)
    if length is None:
        return ResponseFacts(keep_alive, Framing.NONE, 0)
    return ResponseFacts(keep_alive, Framing.LENGTH, int(length))


def _read_length(block: FieldBlock) -> bytes | Literal[False] | None:
    """Return the value of the one Content-Length, None where there is none, False for anything else."""
    count = block.roles & _ANY_LENGTH
    if not count:
        return None
    length = first_value(block.fields, b"content-length") or b""
    return length if count == LENGTH and _LENGTH.fullmatch(length) else False
