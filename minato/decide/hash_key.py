"""What of a request ConsistentHash hashes."""

from __future__ import annotations

import re
from collections.abc import Callable

from minato.config.affinity import HashBy, HashConfig
from minato.protocol.message import RequestHead, first_value

KeyOf = Callable[[RequestHead, str], bytes]
"""Returns the key of a request, given its head and the client's address."""


def make_key_of(config: HashConfig) -> KeyOf:
    """Return what reads the keys that a service asks for.

    A request without that header or cookie, or with an empty one, is hashed by its client's address: those that have
    nothing in common but the lack of it are spread, and one client stays where it is until it has one.
    """
    if config.by is HashBy.URL:
        return _url
    if config.by is HashBy.PATH:
        return _path
    if config.by is HashBy.CLIENT:
        return _client
    return _by_header(config.name.encode()) if config.by is HashBy.HEADER else _by_cookie(config.name.encode())


def _url(head: RequestHead, client: str) -> bytes:
    return head.host + head.path


def _path(head: RequestHead, client: str) -> bytes:
    return head.path.partition(b"?")[0]


def _client(head: RequestHead, client: str) -> bytes:
    return client.encode()


def _by_header(name: bytes) -> KeyOf:
    def key_of(head: RequestHead, client: str) -> bytes:
        return first_value(head.block.fields, name) or client.encode()

    return key_of


def _by_cookie(name: bytes) -> KeyOf:
    pattern = cookie_pattern(name, rb"[^;]*")

    def key_of(head: RequestHead, client: str) -> bytes:
        for field, value in head.block.fields:
            if field == b"cookie" and (match := pattern.search(value)) is not None:
                return match[1].strip(b" \t") or client.encode()
        return client.encode()

    return key_of


def cookie_pattern(name: bytes, value: bytes) -> re.Pattern[bytes]:
    """Return what finds ``name=value`` in a Cookie field, in linear time; ``value``, a pattern, is its group 1."""
    return re.compile(rb"(?:^|;)[ \t]*" + re.escape(name) + rb"=(" + value + rb")[ \t]*(?=;|$)")
