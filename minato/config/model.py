"""The config as frozen dataclasses: what the rest of minato sees; defaults are those of the contract."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network

from minato.config.affinity import HashConfig, StickyConfig


class BalancerKind(enum.Enum):
    ROUND_ROBIN = "RoundRobin"
    LEAST_CONNECTIONS = "LeastConnections"
    POWER_OF_TWO = "PowerOfTwo"
    CONSISTENT_HASH = "ConsistentHash"


class CacheKind(enum.Enum):
    LRU = "LRU"
    LFU = "LFU"


class LogFormat(enum.Enum):
    COMBINED = "combined"
    JSON = "json"


class ClientField(enum.Enum):
    """The field in which trusted proxies say who their client is."""

    X_FORWARDED_FOR = "X-Forwarded-For"
    FORWARDED = "Forwarded"


class ProxyProtocol(enum.Enum):
    """The version of the PROXY protocol that connections to an upstream begin with."""

    V1 = "v1"
    V2 = "v2"

    @property
    def version(self) -> int:
        return 1 if self is ProxyProtocol.V1 else 2


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """The response cache, per worker. Sizes in bytes; ``ttl_s`` is the freshness lifetime of responses without one.

    ``show_key``: whether Cache-Status tells clients the key.
    """

    enabled: bool = False
    kind: CacheKind = CacheKind.LRU
    capacity: int = 100
    max_body_size_bytes: int = 1_048_576
    max_memory_bytes: int = 268_435_456
    ttl_s: float = 300.0
    show_key: bool = False


@dataclass(frozen=True, slots=True)
class ServiceCacheConfig:
    """What one service does differently about the cache. Names end in ``*`` where they stand for all that begin so.

    Attributes:
        enabled: None: as the top-level section says.
        ttl_s: None: as the top-level section says.
        bypass_paths: path prefixes, in whole segments, that are neither answered from the cache nor stored.
        bypass_cookies: names; a request with such a cookie is not answered from the cache, nor is its response stored.
        key_cookies: names of cookies that are part of the key.
        key_headers: lower-case names of request fields that are part of the key.
        ignore_query: names of query parameters that are no part of the key, nor of what the upstream is asked for.
        negative_ttl_s: ``(first status, last status, seconds)``, a single status before the class it belongs to: the
            lifetime of such responses that bring none.
    """

    enabled: bool | None = None
    ttl_s: float | None = None
    bypass_paths: tuple[str, ...] = ()
    bypass_cookies: tuple[str, ...] = ()
    key_cookies: tuple[str, ...] = ()
    key_headers: tuple[str, ...] = ()
    ignore_query: tuple[str, ...] = ()
    negative_ttl_s: tuple[tuple[int, int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """Active health checks.

    Attributes:
        expect: the inclusive status ranges that count as healthy.
        drain: those that mean: healthy, but no new traffic. They go before ``expect``.
        slow_start_s: over which time the share of a recovered upstream grows; 0: it has all of it at once.
    """

    interval_s: float = 10.0
    tcp_timeout_s: float = 1.0
    http_timeout_s: float = 5.0
    rise: int = 1
    fall: int = 1
    expect: tuple[tuple[int, int], ...] = ((200, 200),)
    drain: tuple[tuple[int, int], ...] = ()
    slow_start_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PassiveHealthConfig:
    """What failed requests do to an upstream.

    Attributes:
        consecutive: failures in a row, as one worker sees them, that eject it; 0: they do not.
        error_rate: share of failures within the window, over all workers, that ejects it; 0: it does not.
        window_s: see above; failures further apart are not in a row.
        min_requests: the error rate counts from so many within the window on.
        eject_s: the first ejection lasts so long, each further one twice as long as the one before.
        max_eject_s: none lasts longer.
        max_ejected: share of a service's upstreams that may be ejected at a time; one always may, if it is not 0.
        statuses: inclusive ranges of responses that count as failures, beside what failed altogether.
    """

    consecutive: int = 5
    error_rate: float = 0.0
    window_s: float = 10.0
    min_requests: int = 20
    eject_s: float = 10.0
    max_eject_s: float = 300.0
    max_ejected: float = 0.5
    statuses: tuple[tuple[int, int], ...] = ()

    @property
    def is_on(self) -> bool:
        """Whether anybody is ever ejected."""
        return bool(self.max_ejected and (self.consecutive or self.error_rate))


@dataclass(frozen=True, slots=True)
class Timeouts:
    """All in seconds."""

    connect_s: float = 5.0
    response_s: float = 10.0
    read_s: float = 60.0
    write_s: float = 60.0
    client_header_s: float = 10.0
    client_body_s: float = 60.0
    client_idle_s: float = 75.0
    upstream_idle_s: float = 90.0
    drain_s: float = 30.0
    upgrade_s: float = 60.0
    orphaned_s: float = 10.0
    heartbeat_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps; 0 means none for ``body_bytes`` and all from ``upstream_connections`` on."""

    header_bytes: int = 32_768
    header_fields: int = 100
    target_bytes: int = 8_192
    body_bytes: int = 0
    connections: int = 10_000
    upstream_connections: int = 0
    connections_per_client: int = 0
    upload_bytes_per_s: int = 240
    download_bytes_per_s: int = 240
    connection_requests: int = 0
    partial_heads_bytes: int = 33_554_432
    accept_wait_s: float = 5.0


@dataclass(frozen=True, slots=True)
class RetryBudgetConfig:
    """How many retries a worker may make: ``share`` of its requests, and so many each second besides."""

    share: float = 0.2
    min_per_s: float = 10.0


@dataclass(frozen=True, slots=True)
class AccessLogConfig:
    """``path``: ``off``, ``-`` (standard output) or a file."""

    path: str = "off"
    format: LogFormat = LogFormat.COMBINED


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a service or the admin API listens. ``host`` is ``""`` for all addresses (IPv4 and IPv6)."""

    host: str
    port: int

    def __str__(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host or "*"
        return f"{name}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for all addresses, of one family at least."""
        return self.host in ("", "::", "0.0.0.0")

    def overlaps(self, other: ListenAddress) -> bool:
        """Tell whether one of the two holds the other."""
        return self.port == other.port and (self.host == other.host or self.is_wildcard or other.is_wildcard)


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """The admin API. ``listen``: None when it is off."""

    listen: ListenAddress | None = None


@dataclass(frozen=True, slots=True)
class RecycleConfig:
    """After what a worker is replaced by a fresh one; 0 means never.

    Attributes:
        requests: that it has served.
        memory_bytes: that it takes (RSS).
        jitter: which part of these, at random, is taken off for each worker, so that they do not go together.
    """

    requests: int = 0
    memory_bytes: int = 0
    jitter: float = 0.1

    @property
    def is_on(self) -> bool:
        """Whether any worker is ever replaced for what it has done or takes."""
        return bool(self.requests or self.memory_bytes)


@dataclass(frozen=True, slots=True)
class ForwardedConfig:
    """Who the client is where a proxy stands in front, and what upstreams are told of it.

    Attributes:
        believe: the field of trusted proxies that counts; others that say the same kind of thing do not.
        send: whether upstreams get Forwarded (RFC 7239) beside X-Forwarded-*, whatever was received.
    """

    believe: ClientField = ClientField.X_FORWARDED_FOR
    send: bool = False


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """How names of upstreams are resolved.

    Attributes:
        interval_s: between two questions for the same name; 0: only at start and reload.
        timeout_s: after which an answer that has not come counts as none; also how long a start waits for it.
        max_addresses: of one name; of more the first in numeric order are used.
    """

    interval_s: float = 30.0
    timeout_s: float = 10.0
    max_addresses: int = 16


@dataclass(frozen=True, slots=True)
class HostRule:
    """One entry of ``hosts``.

    Attributes:
        host: lower-case name without port; ``*.example.org`` for a wildcard; an IPv6 address in brackets.
        path: the path prefix, beginning with ``/``, without a trailing slash unless it is ``/`` itself.
    """

    host: str
    path: str


@dataclass(frozen=True, slots=True)
class Upstream:
    """One configured server.

    Attributes:
        url: as written in the config.
        scheme: ``http`` or ``https``.
        host: name or address without brackets.
        port: with the scheme's default filled in.
        path: what is put in front of the request's path; ``""`` or ``/base`` (no trailing slash).
        query: what is put in front of the request's query; ``""`` for nothing.
        health_uri: origin-form target of the health check, beginning with ``/``.
        weight: share of the traffic, at least 1.
        proxy_protocol: what connections to it begin with; None for nothing.
        max_connections: exchanges in flight with it, over all workers; 0: any number; None: as limits says.
        address: which one of its name's addresses this one stands for; "" for all that there are.
        backup: whether it gets traffic only while no upstream of the service that is none can take any.
    """

    url: str
    scheme: str
    host: str
    port: int
    path: str = ""
    query: str = ""
    health_uri: str = "/"
    weight: int = 1
    proxy_protocol: ProxyProtocol | None = None
    max_connections: int | None = None
    address: str = ""
    backup: bool = False

    @property
    def authority(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def identity(self) -> str:
        """What a service tells its upstreams apart by: the URL with all defaults filled in, however it is written."""
        suffix = (f"?{self.query}" if self.query else "") + (f" [{self.address}]" if self.address else "")
        return f"{self.scheme}://{self.authority}{self.path}{suffix}"

    @property
    def key(self) -> str:
        """What health is kept by: address, health_uri, proxy_protocol. Services that name the same server share it."""
        suffix = f" (PROXY {self.proxy_protocol.value})" if self.proxy_protocol else ""
        if self.address:
            suffix += f" [{self.address}]"
        return f"{self.scheme}://{self.authority}{self.health_uri}{suffix}"

    def at(self, address: str) -> Upstream:
        """Return the upstream that one address of the name is."""
        return replace(self, url=f"{self.url} [{address}]", address=address)


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """Requests that wait for room while all upstreams of a service are full: how many per worker, and how long each."""

    size: int = 100
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Service:
    """One service.

    Attributes:
        proxy_protocol: whether connections to its address begin with a PROXY header; so for all that share it.
        hash: what ConsistentHash hashes.
        sticky: the cookie of sticky sessions; None: there are none.
    """

    name: str
    listen: ListenAddress
    balancer: BalancerKind
    hosts: tuple[HostRule, ...]
    upstreams: tuple[Upstream, ...]
    retries: int = 1
    cache: ServiceCacheConfig = field(default_factory=ServiceCacheConfig)
    proxy_protocol: bool = False
    hash: HashConfig = field(default_factory=HashConfig)
    sticky: StickyConfig | None = None
    queue: QueueConfig = field(default_factory=QueueConfig)


@dataclass(frozen=True, slots=True)
class Config:
    """A whole, valid config.

    ``path`` is the file it came from; ``workers`` None means the CPU count; ``trace`` whether TRACE is forwarded.
    """

    path: str
    services: tuple[Service, ...]
    workers: int | None = None
    express: bool = True
    trace: bool = False
    cache: CacheConfig = field(default_factory=CacheConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    passive_health: PassiveHealthConfig = field(default_factory=PassiveHealthConfig)
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    recycle: RecycleConfig = field(default_factory=RecycleConfig)
    access_log: AccessLogConfig = field(default_factory=AccessLogConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    forwarded: ForwardedConfig = field(default_factory=ForwardedConfig)
    retry_budget: RetryBudgetConfig = field(default_factory=RetryBudgetConfig)
    dns: DnsConfig = field(default_factory=DnsConfig)

    def is_cached(self, service: Service) -> bool:
        """Tell whether the cache is on for a service: what that says itself goes before the top-level section."""
        return self.cache.enabled if service.cache.enabled is None else service.cache.enabled

    def connection_cap(self, upstream: Upstream) -> int:
        """Return how many exchanges may be in flight with an upstream; 0: any number."""
        own = upstream.max_connections
        return self.limits.upstream_connections if own is None else own

    def listen_addresses(self) -> tuple[ListenAddress, ...]:
        """Every address a service listens on, once each, in the order of the file."""
        return tuple(dict.fromkeys(service.listen for service in self.services))

    def introduced_addresses(self) -> frozenset[ListenAddress]:
        """The addresses on which every connection begins with a PROXY header."""
        return frozenset(service.listen for service in self.services if service.proxy_protocol)

    def upstream_index(self) -> dict[str, int]:
        """Upstream key -> its column on the shared-memory board (services that name the same server share one)."""
        keys = dict.fromkeys(upstream.key for service in self.services for upstream in service.upstreams)
        return {key: index for index, key in enumerate(keys)}
