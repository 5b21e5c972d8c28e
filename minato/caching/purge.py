"""What a purge asks for: by URL, by prefix, by tag or everything; to forget it, or to make it stale."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from minato.caching.key import PrimaryKey, normalize_authority

ToKeyTarget = Callable[[int, bytes], bytes]
"""``(service index, target)`` -> the target as it is in that service's keys."""

_URL: Final = re.compile(rb"(?:([A-Za-z][A-Za-z0-9+.-]*)://)?([^/?#]*)([^#]*)(?:#.*)?", re.DOTALL)
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


class PurgeKind(enum.Enum):
    """What the value of a purge is compared with; the value is the word of the admin API."""

    URL = "url"
    PREFIX = "prefix"
    TAG = "tag"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class PurgeRequest:
    """One purge; it is for every service and every variant.

    Attributes:
        kind: what ``value`` is.
        value: URL: ``http://host[:port]/path?query``; PREFIX: the beginning of one. Without ``scheme://`` either is for
            every scheme. TAG: the tag. ALL: not looked at.
        soft: what is found becomes stale, to be validated or served where stale responses may be; otherwise it is
            forgotten.
    """

    kind: PurgeKind
    value: bytes = b""
    soft: bool = False


class UrlPattern:
    """What a URL or the beginning of one says about cache keys.

    Hosts are compared in lower case, without a dot at their end and without the scheme's own port; a client's port is
    part of the key, so another port is another host. Paths are compared in the normal form of RFC 3986, 6.2.2.1 and
    6.2.2.2: ``/%7euser`` is ``/~user``. What the service's key has or leaves out besides the URL does not matter.
    """

    def __init__(self, kind: PurgeKind, value: bytes, to_key_target: ToKeyTarget | None = None) -> None:
        """Read the value of a URL or PREFIX purge; one that is no URL matches nothing.

        Args:
            kind: URL or PREFIX. A prefix is compared byte by byte: ``/img`` is the beginning of ``/img2``, too. One
                that is no more than a host is the whole host.
            value: the URL.
            to_key_target: makes the target that a service's keys have of one that was asked for, where these differ.
        """
        match = _URL.fullmatch(value)
        self._is_prefix = kind is PurgeKind.PREFIX
        self._scheme = match[1] and match[1].lower() if match else None
        self._host = _normalize_host(match[2].lower(), self._scheme) if match else None
        path: bytes = match[3] if match else b""
        if path[:1] != b"/" and (path or not self._is_prefix):
            path = b"/" + path
        self._path = path
        self._target = normalize_target(path)
        self._to_key_target = to_key_target
        self._targets: dict[int, bytes] = {}

    def matches(self, key: PrimaryKey) -> bool:
        """Tell whether a key is of that URL, or of one that begins so."""
        service, scheme, host, target = key[:4]
        wanted = self._target if self._to_key_target is None else self._target_of(service)
        if b"%" in target:
            target = normalize_target(target)
        if not (target.startswith(wanted) if self._is_prefix else target == wanted):
            return False
        if self._scheme is not None and scheme.lower() != self._scheme:
            return False
        # Behind a trusted proxy there may be two: what it sent as Host, and what the client did.
        return any(_normalize_host(name, scheme) == self._host for name in host.lower().split(b" "))

    def _target_of(self, service: int) -> bytes:
        target = self._targets.get(service)
        if target is None:
            assert self._to_key_target is not None
            target = normalize_target(self._to_key_target(service, self._path)) if self._path else b""
            self._targets[service] = target
        return target


def normalize_target(target: bytes) -> bytes:
    """Return a target with unreserved characters decoded and the other escapes in upper case."""
    return _ESCAPE.sub(_normalize_escape, target)


def _normalize_escape(match: re.Match[bytes]) -> bytes:
    byte = bytes.fromhex(match[1].decode("ascii"))
    return byte if byte in _UNRESERVED else match[0].upper()


def _normalize_host(host: bytes, scheme: bytes | None) -> bytes:
    host = normalize_authority(host, scheme or b"http")
    name, colon, port = host.rpartition(b":")
    if not colon or b"]" in port:
        return host.removesuffix(b".")
    return name.removesuffix(b".") + b":" + port
