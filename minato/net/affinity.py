"""What ties the requests of a service to single upstreams: the key that is hashed, and sticky sessions."""

from __future__ import annotations

from dataclasses import dataclass

from minato.config.model import BalancerKind, Service
from minato.decide.hash_key import KeyOf, make_key_of
from minato.decide.sticky import Sessions
from minato.protocol.message import RequestHead


@dataclass(frozen=True, slots=True)
class Affinity:
    """Of one service; derived once.

    Attributes:
        key_of: what its balancer hashes; nothing where it does not hash.
        sessions: its sticky ones; None where there are none.
    """

    key_of: KeyOf
    sessions: Sessions | None

    def find_home(self, head: RequestHead) -> int | None:
        """Return the position of the upstream that the request's session is at; None where it has none."""
        return self.sessions.find_home(head.block.fields) if self.sessions is not None else None

    def lines_for(self, position: int) -> bytes:
        """Return the field lines of a response that begins a session at that upstream, on the wire."""
        return self.sessions.lines_for(position) if self.sessions is not None else b""


def make_affinity(service: Service) -> Affinity | None:
    """Return what ties a service's requests to single upstreams, None where nothing does."""
    hashes = service.balancer is BalancerKind.CONSISTENT_HASH
    if not hashes and service.sticky is None:
        return None
    identities = [upstream.identity for upstream in service.upstreams]
    sessions = Sessions(service.sticky, service.name, identities) if service.sticky is not None else None
    return Affinity(make_key_of(service.hash) if hashes else _no_key, sessions)


def _no_key(head: RequestHead, client: str) -> bytes:
    return b""
