"""What a worker derives once from the config, so that no request has to: routes, services, upstreams as bytes."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from minato.config.model import Config, ListenAddress, Service, Upstream
from minato.decide.balance import Balancer, make_balancer
from minato.decide.route import RouteTable
from minato.net.affinity import Affinity, make_affinity
from minato.net.resolve import ResolvedAddress
from minato.net.room import Room


@dataclass(frozen=True, slots=True)
class UpstreamRuntime:
    """One upstream of one service.

    Attributes:
        url: as in the config, for logs.
        index: its column on the shared-memory board.
        position: its place in the service.
        origin: what pooled connections are kept by: the same number for the same scheme, host, port, address of the
            name and proxy_protocol.
        port: to find out connects that met themselves.
        authority: ``host:port`` on the wire.
        server_name: for TLS (SNI and the certificate).
        is_tls: whether it is spoken to by TLS.
        prefix: what goes in front of the request's path.
        query: what goes in front of the request's query.
        proxy_protocol: the version of the PROXY header that connections begin with; 0: none.
        cap: exchanges in flight with it, over all workers; 0: any number.
        is_watched: whether somebody may wait for an exchange on a connection to its origin to end: there is a cap.
        label: the authority, and which address of the name it is, for the access log.
        addresses: what its name resolved to, in the order to try; empty when it did not.
    """

    url: str
    index: int
    position: int
    origin: int
    port: int
    authority: bytes
    server_name: str
    is_tls: bool
    prefix: bytes
    query: bytes
    addresses: tuple[ResolvedAddress, ...]
    proxy_protocol: int = 0
    cap: int = 0
    is_watched: bool = False
    label: str = ""


@dataclass(slots=True, eq=False)
class ServiceRuntime:
    """One service. Its upstreams change in place when a name's addresses do, all at once between two requests.

    So a position means the same only until then; whoever remembers an upstream for longer goes by its ``index``.

    Attributes:
        index: its place in the config.
        config: as configured, with the addresses of names as the upstreams that they are.
        balancer: this worker's.
        upstreams: at the positions that the balancer knows.
        positions: all of them.
        only: its one upstream, where there is nothing to choose while that is healthy; None where there are more, or
            caps on connections, or sticky sessions.
        room: who waits for room; None where no upstream has a cap.
        is_choosy: whether more than health decides who may be chosen: caps on connections, backups, slow start.
        backups: positions of the upstreams that are chosen only where no other one can be.
        active: exchanges in flight of the upstream at a position, over all workers.
        affinity: what ties its requests to single upstreams; None where nothing does.
    """

    index: int
    config: Service
    balancer: Balancer
    upstreams: tuple[UpstreamRuntime, ...]
    positions: tuple[int, ...]
    only: UpstreamRuntime | None
    room: Room | None
    is_choosy: bool
    backups: frozenset[int]
    active: Callable[[int], int]
    affinity: Affinity | None = None

    def become(self, other: ServiceRuntime) -> None:
        """Go on with the upstreams of another one."""
        self.config = other.config
        self.balancer = other.balancer
        self.upstreams = other.upstreams
        self.positions = other.positions
        self.only = other.only
        self.is_choosy = other.is_choosy
        self.backups = other.backups
        self.active = other.active
        self.affinity = other.affinity


class Origins:
    """Numbers by which pooled connections are kept."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._next = 0

    def number(self, place: Hashable) -> int:
        """Return the number of a place, a new one where it has none."""
        if place not in self._numbers:
            self._numbers[place] = self._next
            self._next += 1
        return self._numbers[place]

    def keep_only(self, used: Container[int]) -> list[int]:
        """Forget all numbers but these, and return those."""
        gone = [number for number in self._numbers.values() if number not in used]
        self._numbers = {place: number for place, number in self._numbers.items() if number in used}
        return gone


def build_services(
    config: Config,
    slot: int,
    addresses: Mapping[str, tuple[ResolvedAddress, ...]],
    active: Callable[[int], int],
    *,
    columns: Mapping[str, int] | None = None,
    origins: Origins | None = None,
    wanted: Container[int] | None = None,
) -> tuple[ServiceRuntime, ...]:
    """Return the runtimes of services.

    Args:
        config: of the generation, names split into their addresses.
        slot: keeps workers out of step.
        addresses: of the upstreams, by `Upstream.key`.
        active: exchanges in flight by column of the board.
        columns: of the board, by `Upstream.key`; None: as they come.
        origins: of the worker; None: new ones.
        wanted: the services to build, by their places in the config; None: all.
    """
    columns = config.upstream_index() if columns is None else columns
    origins = origins or Origins()
    watched = {
        _server_of(upstream)
        for service in config.services
        for upstream in service.upstreams
        if config.connection_cap(upstream)
    }
    services = []
    for index, service in enumerate(config.services):
        if wanted is not None and index not in wanted:
            continue
        upstreams = []
        for position, upstream in enumerate(service.upstreams):
            server = _server_of(upstream)
            origin = origins.number((*server, upstream.address))
            built = _build_upstream(upstream, position, origin, columns[upstream.key], addresses)
            upstreams.append(replace(built, cap=config.connection_cap(upstream), is_watched=server in watched))
        services.append(_build_service(config, index, slot, tuple(upstreams), active))
    return tuple(services)


def _build_service(
    config: Config, index: int, slot: int, upstreams: tuple[UpstreamRuntime, ...], active: Callable[[int], int]
) -> ServiceRuntime:
    service = config.services[index]
    has_caps = any(upstream.cap for upstream in upstreams)
    has_choice = len(upstreams) > 1 or has_caps or service.sticky is not None
    backups = frozenset(position for position, upstream in enumerate(service.upstreams) if upstream.backup)
    return ServiceRuntime(
        index=index,
        config=service,
        balancer=make_balancer(service, slot),
        upstreams=upstreams,
        positions=tuple(range(len(upstreams))),
        only=None if has_choice else upstreams[0],
        room=Room(service.queue) if has_caps else None,
        is_choosy=bool(has_caps or backups or config.health.slow_start_s),
        backups=backups,
        active=lambda position: active(upstreams[position].index),
        affinity=make_affinity(service),
    )


def build_routes(config: Config) -> dict[ListenAddress, RouteTable]:
    """Return the route table of every listen address."""
    by_address: dict[ListenAddress, list[tuple[int, Service]]] = {}
    for index, service in enumerate(config.services):
        by_address.setdefault(service.listen, []).append((index, service))
    return {address: RouteTable.build(services) for address, services in by_address.items()}


def _server_of(upstream: Upstream) -> tuple[Hashable, ...]:
    """Return what two upstreams have in common that can use each other's connections, given the same address."""
    return upstream.scheme, upstream.host, upstream.port, upstream.proxy_protocol


def _build_upstream(
    upstream: Upstream, position: int, origin: int, column: int, addresses: Mapping[str, Sequence[ResolvedAddress]]
) -> UpstreamRuntime:
    default_port = 443 if upstream.scheme == "https" else 80
    host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    authority = host if upstream.port == default_port else upstream.authority
    return UpstreamRuntime(
        url=upstream.url,
        index=column,
        position=position,
        origin=origin,
        port=upstream.port,
        authority=authority.encode("ascii"),
        server_name=upstream.host.rstrip("."),
        is_tls=upstream.scheme == "https",
        prefix=upstream.path.encode("ascii"),
        query=upstream.query.encode("ascii"),
        addresses=tuple(addresses.get(upstream.key, ())),
        proxy_protocol=upstream.proxy_protocol.version if upstream.proxy_protocol else 0,
        label=f"{authority} [{upstream.address}]" if upstream.address else authority,
    )
