"""Which service a request belongs to: by host, then by the longest path prefix in whole segments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from urllib.parse import unquote_to_bytes

from minato.config.model import HostRule, Service
from minato.errors import RequestError

_ANY_HOST = b"*"
_WILDCARD = b"*."
_MAX_HOST_BYTES = 255
# What makes a path need more than a split: escapes, empty segments, dot segments in any disguise.
_UNUSUAL = re.compile(rb"%|//|/\.|\.\.")
_SEPARATORS = re.compile(rb"[/\\]")


@dataclass(slots=True)
class _Node:
    """One path segment of a host's rules; ``service`` where a rule's path ends here."""

    service: int | None = None
    children: dict[bytes, _Node] = field(default_factory=dict)


class RouteTable:
    """The routes of one listen address. What a lookup costs depends on the request alone, not on how many services are.

    The exact host comes before wildcards, a longer wildcard before a shorter one, ``*`` last. A host none of whose
    prefixes takes the path leaves it to the next in that order, so that ``*.example.org/`` is served beside
    ``a.example.org/api``.
    """

    __slots__ = ("_any", "_exact", "_whole", "_wildcards")

    def __init__(self) -> None:
        self._exact: dict[bytes, _Node] = {}
        self._wildcards: dict[bytes, _Node] = {}
        self._any = _Node()
        self._whole: dict[bytes, int] = {}  # exact hosts of one service and no prefix but /

    @classmethod
    def build(cls, services: Sequence[tuple[int, Service]]) -> RouteTable:
        """Build the table from ``(service index, service)`` of one listen address.

        Where two services claim the same host and path (the config refuses that), the first has it. A rule with a path
        that ``split_path`` refuses is left out: no request with that path gets as far as being routed.
        """
        table = cls()
        for index, service in services:
            for rule in service.hosts:
                table._add(rule, index)
        table._whole = {
            host: node.service
            for host, node in table._exact.items()
            if node.service is not None and not node.children and not host.startswith(b"[")
        }
        return table

    def find(self, host: bytes, path: bytes) -> int | None:
        """Return the index of the service that takes a request, or None.

        Args:
            host: as in the Host field: any case, perhaps with a port or a trailing dot, IPv6 in brackets; may be empty.
            path: origin-form, with or without query, or ``*``, which is routed as ``/``.

        Raises:
            RequestError: 400; see ``split_path``.
        """
        # Nearly every request: a name as it is in the config, its port cut off, whose rules are one for all paths.
        index = self._whole.get(host if b":" not in host else host[: host.find(b":")])
        if index is not None and _UNUSUAL.search(path) is None:
            return index
        segments = split_path(path)
        for node in self._candidates(normalize_host(host)):
            service = _walk(node, segments)
            if service is not None:
                return service
        return None

    def _add(self, rule: HostRule, index: int) -> None:
        try:
            segments = split_path(rule.path.encode())
        except RequestError:
            return
        node = self._root(rule.host.encode())
        for segment in segments:
            if segment:
                node = node.children.setdefault(segment, _Node())
        if node.service is None:
            node.service = index

    def _root(self, host: bytes) -> _Node:
        if host == _ANY_HOST:
            return self._any
        if host.startswith(_WILDCARD):
            return self._wildcards.setdefault(normalize_host(host.removeprefix(_WILDCARD)), _Node())
        return self._exact.setdefault(normalize_host(host), _Node())

    def _candidates(self, host: bytes) -> Iterator[_Node]:
        """Yield the roots of what the host matches, the most specific first."""
        node = self._exact.get(host)
        if node is not None:
            yield node
        if self._wildcards and len(host) <= _MAX_HOST_BYTES:
            dot = host.find(b".", 1)  # at least one byte has to stand for the asterisk
            while dot >= 0:
                node = self._wildcards.get(host[dot + 1 :])
                if node is not None:
                    yield node
                dot = host.find(b".", dot + 1)
        yield self._any


def normalize_host(host: bytes) -> bytes:
    """Return a host in the form that hosts are compared in: lower case, no port, no trailing dot, IPv6 compressed."""
    host = host.lower()
    if host.startswith(b"["):
        return _normalize_ipv6(host.partition(b"]")[0])
    return host.partition(b":")[0].removesuffix(b".")


def _normalize_ipv6(bracketed: bytes) -> bytes:
    try:
        return b"[%b]" % IPv6Address(bracketed[1:].decode("ascii")).compressed.encode()
    except ValueError:
        return bracketed + b"]"


def split_path(path: bytes) -> list[bytes]:
    """Return the segments that a path is routed by.

    What is forwarded is the path as it came; but routing looks at what an upstream may take it for, so that no spelling
    dodges a prefix: percent-escapes are decoded (``/%61dmin``), dot segments removed (``/public/../admin``; RFC 3986,
    5.2.4), empty segments left out (``//admin``, which many servers merge).

    Raises:
        RequestError: 400, for a path that climbs above the root, which in front of an upstream's own path would leave
            that path; and for dot segments that servers read in different ways: after an empty segment (``//../``), or
            beside an encoded slash, a backslash or a semicolon (``..%2f``, ``..;/``).
    """
    raw = path.partition(b"?")[0]
    pieces = raw.split(b"/")[1:]
    if _UNUSUAL.search(raw) is None:
        return pieces
    segments: list[bytes] = []
    for piece in pieces:
        segment = unquote_to_bytes(piece)
        if segment == b"..":
            _climb(segments)
        elif b".." in segment and _hides_dot_segment(segment):
            raise RequestError(400, "ambiguous path", detail="a dot segment beside a separator inside a path segment")
        elif segment != b".":
            segments.append(segment)
    return [segment for segment in segments if segment]


def _climb(segments: list[bytes]) -> None:
    if not segments:
        raise RequestError(400, "invalid path", detail="the path climbs above the root")
    if not segments[-1]:
        raise RequestError(400, "ambiguous path", detail="a dot segment after an empty segment")
    segments.pop()


def _hides_dot_segment(segment: bytes) -> bool:
    return any(part.partition(b";")[0] == b".." for part in _SEPARATORS.split(segment))


def _walk(node: _Node, segments: Iterable[bytes]) -> int | None:
    best = node.service
    for segment in segments:
        child = node.children.get(segment)
        if child is None:
            break
        node = child
        if node.service is not None:
            best = node.service
    return best
