"""WebSocket frames (RFC 6455), as much of them as an echo needs."""

from __future__ import annotations

import base64
import hashlib
import struct

from tests.chaos.wire import Wire

TEXT, CLOSE = 0x1, 0x8
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_of(key: bytes) -> bytes:
    """Return what Sec-WebSocket-Accept has to say (RFC 6455, 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())


def render(code: int, payload: bytes, mask: bytes = b"") -> bytes:
    """Render a whole frame; clients must mask (5.3)."""
    size, flag = len(payload), 0x80 if mask else 0
    if size < 126:
        head = struct.pack("!BB", 0x80 | code, flag | size)
    elif size < 65_536:
        head = struct.pack("!BBH", 0x80 | code, flag | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | code, flag | 127, size)
    return head + mask + (_masked(payload, mask) if mask else payload)


async def read(wire: Wire) -> tuple[int, bytes]:
    """Read a frame: its code and its payload, unmasked. Raises CutError."""
    first, second = await wire.exactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", await wire.exactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await wire.exactly(8))
    mask = await wire.exactly(4) if second & 0x80 else b""
    payload = await wire.exactly(size)
    return first & 0x0F, _masked(payload, mask) if mask else payload


def _masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
