"""What stands behind a URL: bytes that both ends derive from the target, so that nothing can be swapped."""

from __future__ import annotations

import hashlib


def body_of(target: bytes) -> bytes:
    """Return the body of ``/KIND/SIZE/NAME``: SIZE bytes that no other target and no other place in it share.

    Raises:
        ValueError: the target is none of ours.
    """
    parts = target.split(b"/")
    if len(parts) != 4 or not parts[2].isdigit():
        raise ValueError(f"no such body: {target[:80]!r}")
    return hashlib.shake_128(target).digest(int(parts[2]))


def digest_of(body: bytes) -> str:
    """Return the SHA-256 of a body in hex."""
    return hashlib.sha256(body).hexdigest()
