"""Which service a request belongs to: by host, then by the longest path prefix in whole segments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address

from minato.config.model import HostRule, Service
from minato.errors import RequestError
from minato.protocol.paths import UNUSUAL_PATH, split_path

_ANY_HOST = b"*"
_WILDCARD = b"*."
_MAX_HOST_BYTES = 255


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
        if index is not None and UNUSUAL_PATH.search(path) is None:
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
