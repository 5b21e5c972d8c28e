"""What a worker derives once from the config, so that no request has to: routes, services, upstreams as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from minato.config.model import Config, ListenAddress, Service, Upstream
from minato.decide.balance import Balancer, make_balancer
from minato.decide.route import RouteTable
from minato.net.resolve import ResolvedAddress


@dataclass(frozen=True, slots=True)
class UpstreamRuntime:
    """One upstream of one service.

    Attributes:
        url: as in the config, for logs.
        index: its column on the shared-memory board.
        origin: what pooled connections are kept by: scheme, host and port.
        port: to find out connects that met themselves.
        authority: ``host:port`` on the wire.
        server_name: for TLS (SNI and the certificate).
        is_tls: whether it is spoken to by TLS.
        prefix: what goes in front of the request's path.
        query: what goes in front of the request's query.
        addresses: what its name resolved to, in the order to try; empty when it did not.
    """

    url: str
    index: int
    origin: tuple[str, str, int]
    port: int
    authority: bytes
    server_name: str
    is_tls: bool
    prefix: bytes
    query: bytes
    addresses: tuple[ResolvedAddress, ...]


@dataclass(frozen=True, slots=True)
class ServiceRuntime:
    """One service; ``upstreams`` stand at the positions that the balancer knows."""

    index: int
    config: Service
    balancer: Balancer
    upstreams: tuple[UpstreamRuntime, ...]


def build_services(
    config: Config, slot: int, addresses: Mapping[str, tuple[ResolvedAddress, ...]]
) -> tuple[ServiceRuntime, ...]:
    """Return every service's runtime; ``addresses`` by `Upstream.key`; ``slot`` keeps workers out of step."""
    columns = config.upstream_index()
    return tuple(
        ServiceRuntime(
            index,
            service,
            make_balancer(service, slot),
            tuple(_build_upstream(upstream, columns, addresses) for upstream in service.upstreams),
        )
        for index, service in enumerate(config.services)
    )


def build_routes(config: Config) -> dict[ListenAddress, RouteTable]:
    """Return the route table of every listen address."""
    by_address: dict[ListenAddress, list[tuple[int, Service]]] = {}
    for index, service in enumerate(config.services):
        by_address.setdefault(service.listen, []).append((index, service))
    return {address: RouteTable.build(services) for address, services in by_address.items()}


def _build_upstream(
    upstream: Upstream, columns: Mapping[str, int], addresses: Mapping[str, Sequence[ResolvedAddress]]
) -> UpstreamRuntime:
    default_port = 443 if upstream.scheme == "https" else 80
    host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    return UpstreamRuntime(
        url=upstream.url,
        index=columns[upstream.key],
        origin=(upstream.scheme, upstream.host, upstream.port),
        port=upstream.port,
        authority=(host if upstream.port == default_port else upstream.authority).encode("ascii"),
        server_name=upstream.host.rstrip("."),
        is_tls=upstream.scheme == "https",
        prefix=upstream.path.encode("ascii"),
        query=upstream.query.encode("ascii"),
        addresses=tuple(addresses.get(upstream.key, ())),
    )
