"""A listening socket that invites nobody any more: SYNs are dropped, while handshakes that have begun are finished."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from typing import Final

# Linux's asm-generic/socket.h, struct sock_filter and struct sock_fprog; not in the socket module.
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
_INSTRUCTION: Final = struct.Struct("HBBI")
_PROGRAM: Final = struct.Struct("HL")

_LOAD_BYTE: Final = 0x30
_AND: Final = 0x54
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06

_FLAGS_AT: Final = 13  # in the TCP header, where the filter of a TCP socket begins
_SYN: Final = 0x02
_SYN_OR_ACK: Final = 0x12
_DROP: Final = 0
_KEEP_ALL: Final = 0xFFFF_FFFF

_FILTER: Final = b"".join(
    _INSTRUCTION.pack(*instruction)
    for instruction in (
        (_LOAD_BYTE, 0, 0, _FLAGS_AT),
        (_AND, 0, 0, _SYN_OR_ACK),
        (_JUMP_IF_EQUAL, 0, 1, _SYN),
        (_RETURN, 0, 0, _DROP),
        (_RETURN, 0, 0, _KEEP_ALL),
    )
)


def invite_nobody(listener: socket.socket) -> None:
    """Have the kernel drop SYNs to a listening socket, in whatever process it is open.

    A client that connects tries again after a second, and is refused once the socket is closed. Connections that were
    accepted inherit the filter; it does nothing to them. Where the kernel does not do it, clients go on being invited.
    """
    code = ctypes.create_string_buffer(_FILTER)
    program = _PROGRAM.pack(len(_FILTER) // _INSTRUCTION.size, ctypes.addressof(code))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def invite_again(listener: socket.socket) -> None:
    """End that."""
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, struct.pack("i", 0))
