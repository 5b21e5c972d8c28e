"""Sticky sessions: ids of upstreams that tell nothing about them, and the cookie that carries one."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

from minato.config.affinity import StickyConfig
from minato.decide.hash_key import cookie_pattern
from minato.protocol.fields import Fields

_ID_BYTES: Final = 16
_ID: Final = rb"[A-Za-z0-9_-]{22}"  # those, in base64url without padding
# RFC 9111, 5.2.2.4: a cache in front must not hand the cookie of one client to another.
_KEEP_PRIVATE: Final = b'cache-control: no-cache="set-cookie"\r\n'


class Sessions:
    """The sticky sessions of one service.

    An id is an HMAC of the upstream's URL: the same in every worker, after every restart and on every machine with the
    same secret, whatever else changes in the config.
    """

    __slots__ = ("_lines", "_pattern", "_positions")

    def __init__(self, config: StickyConfig, service: str, identities: Sequence[str]) -> None:
        """Derive the ids.

        Args:
            config: the cookie.
            service: the name of the service, which stands in for a secret where there is none.
            identities: what the upstreams are known by.
        """
        ids = [derive_id(config.secret or service, identity) for identity in identities]
        self._positions = {token: position for position, token in enumerate(ids)}
        self._lines = [_render(config, token) for token in ids]
        self._pattern = cookie_pattern(config.cookie.encode(), _ID)

    def find_home(self, fields: Fields) -> int | None:
        """Return the position of the upstream that a request's cookie names; None without a cookie that names one.

        Of several the first that names one counts. It takes time in proportion to the fields, whatever they hold.
        """
        for name, value in fields:
            if name == b"cookie":
                for match in self._pattern.finditer(value):
                    position = self._positions.get(match[1])
                    if position is not None:
                        return position
        return None

    def lines_for(self, position: int) -> bytes:
        """Return the field lines that send a client back to that upstream, on the wire."""
        return self._lines[position]


def keep_private(fields: Fields) -> bytes:
    """Return what else keeps a session's cookie to its client: a line for each targeted field of the response.

    RFC 9213, 2.2: a cache in front that follows such a field ignores Cache-Control. Its directives are a dictionary, or
    a list, over all lines; ``no-store`` makes none of them wider.
    """
    names = dict.fromkeys(
        name for name, _ in fields if name.endswith(b"-cache-control") or name == b"surrogate-control"
    )
    return b"".join([b"%b: no-store\r\n" % name for name in names])


def derive_id(secret: str, identity: str) -> bytes:
    """Return the id of an upstream: without the secret it can neither be made nor told whose it is."""
    digest = hmac.digest(b"minato sticky session\n" + secret.encode(), identity.encode(), "sha256")
    return urlsafe_b64encode(digest[:_ID_BYTES]).rstrip(b"=")


def _render(config: StickyConfig, token: bytes) -> bytes:
    parts = [b"%b=%b" % (config.cookie.encode(), token), b"Path=" + config.path.encode()]
    if config.ttl_s:
        parts.append(b"Max-Age=%d" % config.ttl_s)
    if config.secure:
        parts.append(b"Secure")
    if config.httponly:
        parts.append(b"HttpOnly")
    parts.append(b"SameSite=" + config.samesite.value.encode())
    return b"set-cookie: " + b"; ".join(parts) + b"\r\n" + _KEEP_PRIVATE
