"""What every exchange of a worker shares: config, cache, pool, counters, and the clock's date."""

from __future__ import annotations

import logging
import math
import ssl
import time
from collections.abc import Callable
from email.utils import formatdate
from ipaddress import ip_address
from typing import Final, Protocol

from minato.caching.cache import Cache
from minato.caching.rules import CacheRules
from minato.caching.stored import StoredResponse
from minato.config.model import Config
from minato.decide.clients import ClientCap
from minato.decide.pool import IdlePool
from minato.net.attempts import Attempts
from minato.net.backlog import Backlog
from minato.net.caps import Caps
from minato.net.codecs import Codecs
from minato.net.hot import HotAnswers
from minato.net.loop import Loop
from minato.net.memory import give_memory_back
from minato.net.partial_heads import PartialHeads, Sheddable
from minato.net.retries import Retries
from minato.net.room import Rooms
from minato.net.runtime import ServiceRuntime, UpstreamRuntime
from minato.net.selection import Selector
from minato.net.splice import PipePool
from minato.net.upstream import UpstreamConnection
from minato.net.watched import WatchedConnection
from minato.protocol.forwarded import Claims, read_claims
from minato.protocol.message import RequestHead
from minato.shared.board import Board
from minato.shared.row import WorkerRow
from minato.telemetry.access_log import AccessLog

MAX_IDLE_PER_UPSTREAM: Final = 512
_MAX_BUFFERED_BYTES: Final = 65_536
_MAX_HOT_BYTES: Final = 4_194_304
_TRUSTED_IDLE_S: Final = 0.2
_MAX_SET_BACK_S: Final = 1.0

log = logging.getLogger("minato.cache")


class Unattended(Protocol):
    """An exchange without a client; ``on_client_left`` ends it."""

    def on_client_left(self) -> None: ...


class WorkerContext:
    """One per worker and generation.

    Attributes:
        config: the generation's config.
        loop: the worker's loop.
        board: the shared-memory board.
        row: this worker's row on it; another object of the same kind, while ``attempts`` wants to hear of responses.
        attempts: what is noted of how attempts with upstreams ended.
        services: by service index.
        health: the board's, per upstream column.
        selector: which upstream gets the next request.
        rooms: who waits for upstreams that are full.
        retries: how many more requests may be sent once more.
        body_cap: limits.body_bytes.
        timeouts: the config's.
        min_bytes_per_s: limits.download_rate.
        last_request: the number of the request after which a connection is closed; 0: it is not.
        backlog: clients with more to do than one turn is for.
        partial_heads: of clients, to bound the memory that they take together.
        max_buffered_bytes: of requests that wait behind the present one, per connection.
        cache: the response cache; None when it is off for every service.
        cache_rules: by service index; None for the plain ones, whose requests and keys are what they are.
        hot: answers that may go out again as they are.
        pool: idle upstream connections.
        pipes: for bodies that are spliced.
        unattended: exchanges that no client waits for: they fetch for the cache.
        access_log: None when it is off.
        draining: whether every response is to close its connection.
        date: the HTTP-date of this second.
        trusts_some: whether there are trusted proxies at all.
        sends_forwarded: whether every request to an upstream has Forwarded.
        per_client: limits.connections_per_client.
    """

    def __init__(
        self,
        *,
        config: Config,
        loop: Loop,
        board: Board,
        row: WorkerRow,
        services: tuple[ServiceRuntime, ...],
        access_log: AccessLog | None,
        wake_health: Callable[[], None],
    ) -> None:
        self.config = config
        self.loop = loop
        self.board = board
        self.row = row
        self.services = services
        self.health = board.health
        self.rooms = Rooms(loop, row, services)
        self.selector = Selector(config, board, row, Caps(loop, board, row, self.rooms), loop)
        self.attempts = Attempts(config.passive_health, row, loop, self._put_row, wake_health)
        self.retries = Retries(config.retry_budget, row)
        self.body_cap = config.limits.body_bytes
        self.timeouts = config.timeouts
        self.min_bytes_per_s = config.limits.download_bytes_per_s
        self.last_request = config.limits.connection_requests
        self.backlog = Backlog(loop)
        self.partial_heads: PartialHeads[Sheddable] = PartialHeads(config.limits.partial_heads_bytes)
        self.max_buffered_bytes = max(_MAX_BUFFERED_BYTES, config.limits.header_bytes + 1)
        rules = {index: CacheRules(config.cache, service.cache) for index, service in enumerate(config.services)}
        self.cache = Cache(config.cache, rules) if any(rule.enabled for rule in rules.values()) else None
        self.cache_rules = tuple(None if rule.is_plain else rule for rule in rules.values())
        # A share of what the cache may hold, since evicted responses may be among it.
        self.hot = HotAnswers(min(config.cache.max_memory_bytes // 20, _MAX_HOT_BYTES))
        self.touch: Callable[[StoredResponse], None] = self.cache.touch if self.cache is not None else _touch_nothing
        self.pool: IdlePool[UpstreamConnection] = IdlePool(MAX_IDLE_PER_UPSTREAM)
        self.pipes = PipePool()
        self.unattended: set[Unattended] = set()
        self.access_log = access_log
        self.codecs = Codecs(config)
        self.draining = False
        self._wake_health = wake_health
        self._tls = _make_tls_context(services)
        self._trusted: dict[str, bool] = {}
        self.trusts_some = bool(config.trusted_proxies)
        self.sends_forwarded = config.forwarded.send
        self.per_client = ClientCap(config.limits.connections_per_client)
        self.date = b""
        self._wall_ahead_s = -math.inf  # the highest that the wall clock was over the monotonic one
        self._clock = loop.timer(self._tick)
        self._tick()

    def _tick(self) -> None:
        """Render the date, and see whether the clock was set back, pay into the retry budget; each second."""
        wall_s = time.time()
        self.date = formatdate(wall_s, usegmt=True).encode("ascii")
        self._clock.set(1.0 - wall_s % 1.0)
        self.retries.refill()
        ahead_s = wall_s - time.monotonic()
        if ahead_s < self._wall_ahead_s - _MAX_SET_BACK_S:
            self._forget_ages(self._wall_ahead_s - ahead_s)
            self._wall_ahead_s = ahead_s
        elif ahead_s > self._wall_ahead_s:
            self._wall_ahead_s = ahead_s

    def _forget_ages(self, set_back_s: float) -> None:
        """The wall clock was set back: nobody knows any more how old anything stored is, and it would never get older.

        One that is set forward makes things stale, which does no harm.
        """
        if self.cache is not None:
            forgotten = self.cache.clear()
            log.warning("the clock was set back by %.1f s: the cache lets %d responses go", set_back_s, forgotten)

    def is_trusted(self, client: str) -> bool:
        """Tell whether that address is a trusted proxy's."""
        networks = self.config.trusted_proxies
        if not networks:
            return False
        known = self._trusted.get(client)
        if known is None:
            address = ip_address(client.partition("%")[0])
            if len(self._trusted) > 4096:
                self._trusted.clear()
            known = self._trusted[client] = any(address in network for network in networks)
        return known

    def read_claims(self, head: RequestHead, peer: str) -> Claims:
        """Return what a trusted peer says of a request's client."""
        return read_claims(
            head, peer, self.is_trusted, self.config.forwarded.believe, sends_forwarded=self.sends_forwarded
        )

    def idle_connection(self, upstream: UpstreamRuntime, must_be_alive: bool) -> UpstreamConnection | None:
        """Take a pooled connection; one that was found dead on the way is closed.

        The loop hears of an idle connection that ends, but perhaps only after this, later in the same turn. Then
        nothing was sent on it yet, since that waits for the turn's end. So one that was used a moment ago is trusted;
        others are asked, and so are all for a request that could not be sent once more (2 us each).
        """
        while (connection := self.pool.take(upstream.origin)) is not None:
            is_trusted = connection.idle_since_s > self.loop.now_s - _TRUSTED_IDLE_S and not must_be_alive
            if is_trusted or connection.is_alive():
                return connection
            connection.close()
        return None

    def new_connection(self, upstream: UpstreamRuntime) -> UpstreamConnection:
        """Make a connection that is not connected yet."""
        if upstream.is_watched:
            return self._new_watched(upstream)
        return UpstreamConnection(
            self.loop,
            upstream,
            self.config.timeouts,
            self.codecs.make_client_codec(),
            self._tls,
            # One that began with a client's address cannot serve another client.
            UpstreamConnection.close if upstream.proxy_protocol else self._keep_idle,
            self._forget_idle,
            self.make_room,
        )

    def _new_watched(self, upstream: UpstreamRuntime) -> UpstreamConnection:
        """Make one for whose end somebody may wait."""
        return WatchedConnection(
            self.rooms.look_soon,
            self.loop,
            upstream,
            self.config.timeouts,
            self.codecs.make_client_codec(),
            self._tls,
            UpstreamConnection.close if upstream.proxy_protocol else self._keep_watched,
            self._forget_idle,
            self.make_room,
        )

    def report_refused(self, upstream: UpstreamRuntime) -> None:
        """Count a refused connection against an upstream, and wake the master's health thread to read the count."""
        self.row.count_refused(upstream.index)
        self._wake_health()

    def _put_row(self, row: WorkerRow) -> None:
        self.row = row

    def give_up_unattended(self) -> None:
        """End what no client waits for."""
        for exchange in list(self.unattended):
            exchange.on_client_left()

    def shed(self) -> None:
        """Let go of what is stored; a response under way is served to its end all the same."""
        if self.cache is not None:
            self.hot.clear()
            self.cache.clear()
            give_memory_back()

    def close_idle(self) -> None:
        """Close every pooled connection."""
        for connection in self.pool.take_all():
            connection.close()

    def make_room(self) -> bool:
        """Descriptors have run out: close what can be spared; tell whether there was anything."""
        spare = self.pool.take_all()
        for connection in spare:
            connection.close()
        return bool(spare)

    def _keep_idle(self, connection: UpstreamConnection) -> None:
        origin = connection.upstream.origin
        if self.draining:
            connection.close()
            return
        surplus = self.pool.give(origin, connection)
        if surplus is not None:
            surplus.close()

    def _keep_watched(self, connection: UpstreamConnection) -> None:
        self._keep_idle(connection)
        self.rooms.look_soon()

    def _forget_idle(self, connection: UpstreamConnection) -> None:
        self.pool.forget(connection.upstream.origin, connection)


def _touch_nothing(stored: StoredResponse) -> None:
    """There is no cache whose order it could change."""


def _make_tls_context(services: tuple[ServiceRuntime, ...]) -> ssl.SSLContext | None:
    """Return the context for https upstreams (certificates and names verified), None where there are none."""
    if not any(upstream.is_tls for service in services for upstream in service.upstreams):
        return None
    context = ssl.create_default_context()
    # Python up to 3.11.3 takes a connection that was cut for one that ended; so might an attacker shorten a response.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.set_alpn_protocols(["http/1.1"])
    return context
