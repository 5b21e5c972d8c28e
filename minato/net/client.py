"""What an exchange asks of the side its request came from: a client's connection, or nobody any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from minato.decide.route import RouteTable
from minato.net.stream import Stream
from minato.protocol.forwarded import Claims
from minato.protocol.proxy_protocol import Endpoints
from minato.protocol.render import Persistence

if TYPE_CHECKING:
    from minato.net.exchange import Exchange
    from minato.net.tunnel import Tunnel
    from minato.net.upstream import UpstreamConnection


class Client(Protocol):
    """The side that a request came from."""

    @property
    def address(self) -> str:
        """The client's address, without port: behind trusted proxies what they say (for logs and limits)."""

    @property
    def peer_bytes(self) -> bytes:
        """The address of whoever connected, on the wire; the client's or a proxy's."""

    @property
    def claims(self) -> Claims | None:
        """What a trusted proxy says of the request's client; None where there is none."""

    @property
    def routes(self) -> RouteTable:
        """Of the configured address it came in on."""

    @property
    def half_closed(self) -> bool:
        """Whether the client has sent its FIN."""

    @property
    def is_congested(self) -> bool:
        """Whether it is behind: no more is to be written until the exchange hears ``on_client_drained``."""

    @property
    def sink(self) -> Stream | None:
        """Where a body may be spliced to, None where it may not."""

    def write(self, data: bytes | memoryview, /) -> None:
        """Queue bytes for the client."""

    def find_endpoints(self) -> Endpoints | None:
        """Return the ends of the client's connection for a PROXY header; None where there is none."""

    def enter(self) -> bool:
        """Count the present exchange for a client behind a trusted proxy; tell whether it has not too many."""

    def continue_request(self) -> None:
        """The exchange wants the body (again)."""

    def discard_request(self) -> bool:
        """Read off what has come of a body that nobody wants; tell whether that was all of it."""

    def finish_exchange(self, persistence: Persistence) -> None:
        """The response is complete."""

    def end_by_close(self) -> None:
        """The response that begins ends with the connection: any other end of that is to be a RST."""

    def abort_exchange(self) -> None:
        """The response cannot be completed, and the client is to see it."""

    def start_tunnel(self, upstream: UpstreamConnection) -> tuple[Tunnel, bytes, bytes]:
        """Join with the upstream's connection."""

    def on_exchange_crash(self, exchange: Exchange) -> None:
        """A bug ended the handling of that exchange."""


class Nobody:
    """Stands in for a client that left, or that there never was, while the response is still wanted in the cache."""

    half_closed = False
    is_congested = False
    sink: Stream | None = None

    def __init__(self, client: Client) -> None:
        """Stand in for ``client``, whose present request it is."""
        self.address = client.address
        self.peer_bytes = client.peer_bytes
        self.claims = client.claims
        self.routes = client.routes

    def __repr__(self) -> str:
        return f"<Nobody in place of {self.address}>"

    def write(self, data: bytes | memoryview, /) -> None: ...

    def find_endpoints(self) -> Endpoints | None:
        return None

    def enter(self) -> bool:
        return True

    def continue_request(self) -> None: ...

    def discard_request(self) -> bool:
        return True

    def finish_exchange(self, persistence: Persistence) -> None: ...

    def end_by_close(self) -> None: ...

    def abort_exchange(self) -> None: ...

    def start_tunnel(self, upstream: UpstreamConnection) -> tuple[Tunnel, bytes, bytes]:
        raise AssertionError("nobody asked for an upgrade")

    def on_exchange_crash(self, exchange: Exchange) -> None:
        exchange.on_client_left()
