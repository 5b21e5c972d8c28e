"""The way up of an exchange: an upstream is picked, the request sent to it, and sent once more where that is safe."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from minato.caching.answer import CachedAnswer
from minato.decide.exchange import (
    IDEMPOTENT_METHODS,
    FailedAttempt,
    Phase,
    RetryVerdict,
    check_transition,
    judge_retry,
)
from minato.decide.pace import Pace
from minato.errors import ExchangeError, NoRoomError, RequestError, UpstreamError
from minato.net.affinity import Affinity
from minato.net.cache_session import CacheSession
from minato.net.client import Client
from minato.net.context import WorkerContext
from minato.net.forwarding import render_upstream_request
from minato.net.record import describe_request
from minato.net.runtime import ServiceRuntime, UpstreamRuntime
from minato.net.splice import Splice
from minato.net.stream import Stream
from minato.net.upstream import UpstreamConnection, UpstreamOwner
from minato.protocol import render
from minato.protocol.message import Fields, Framing, RequestHead
from minato.protocol.proxy_protocol import render_proxy_header
from minato.protocol.trailers import passable_trailers
from minato.shared.board import Counter

if TYPE_CHECKING:
    from minato.net.tunnel import Tunnel

log = logging.getLogger("minato.exchange")

# A body up to this size is kept until the response begins, so that the request can be sent once more where it may be.
_MAX_REPLAY_BYTES: Final = 65_536
_HTTP_1_1: Final = 11
_NEVER: Final = 100  # no version of HTTP
_SERVICE_UNAVAILABLE: Final = 503
_GATEWAY_TIMEOUT: Final = 504
_CHUNKED: Final = Framing.CHUNKED
_NONE: Final = Framing.NONE
_QUEUED: Final = Phase.QUEUED
_CONNECTING: Final = Phase.CONNECTING
_AWAITING_HEAD: Final = Phase.AWAITING_HEAD
_RELAYING: Final = Phase.RELAYING


class Uplink(UpstreamOwner):
    """The half of an exchange that faces the upstream; `net.exchange.Exchange` is the other one, made of this.

    Attributes:
        head: the request's head.
        phase: where the exchange stands (decide.exchange).
        request_complete: whether all of the request has come; set by the client's connection.
        body_bytes_up: of the request's body, what has come.
        response_begun: whether bytes of a final response went downstream.
        takes_whole: whether ``on_whole_response`` may be told instead of the three for its parts.
    """

    # Defaults of the class: what an ordinary exchange never changes is not set for each of them.
    response_begun = False
    takes_whole = False
    _cache: CacheSession | None = None
    _freshened: CachedAnswer | None = None
    _withheld = False  # the response is not relayed: the cache answers once it has ended
    _tunnel: Tunnel | None = None
    _tried: tuple[int, ...] = ()  # columns on the board
    _retries = 0  # so far
    _fresh_retried = False
    _may_be_gone = False  # whether the present attempt is the fresh one, with an upstream that may have gone for good
    _replay: list[bytes] | None = None  # body pieces sent so far; None once they are not all kept
    body_bytes_up = 0
    pace: Pace | None = None  # of the client, once it is waited for in the middle of a body
    _trailers_up: Fields | None = None  # those of the request that go on
    _service: ServiceRuntime | None = None
    _upstream: UpstreamRuntime | None = None  # the one tried last
    _session_lines = b""  # of the response, on the wire, where it begins a sticky session
    _whole_from = _HTTP_1_1  # the version of HTTP from which on ``takes_whole`` may be
    _connection: UpstreamConnection | None = None

    head: RequestHead
    began_s: float
    phase: Phase
    request_complete: bool
    _context: WorkerContext
    _client: Client

    def _fail(self, error: ExchangeError) -> None:
        """End the exchange: with an answer where nothing was sent yet, with a cut that shows otherwise."""
        raise NotImplementedError

    def _go(self, phase: Phase) -> None:
        if phase not in self.phase.followers:
            check_transition(self.phase, phase)
        self.phase = phase

    # -- from the client's connection

    @property
    def wants_body(self) -> bool:
        """Whether a piece of the request's body can be taken now."""
        connection = self._connection
        return connection is not None and self.phase in (_AWAITING_HEAD, _RELAYING) and not connection.congested

    def on_request_body(self, data: bytes) -> None:
        self.body_bytes_up += len(data)
        cap = self._context.body_cap
        if cap and self.body_bytes_up > cap:
            self._fail(RequestError(413, "the request's body is too large"))
            return
        if self._replay is not None:
            self._keep_for_replay(data)
        assert self._connection is not None
        self._connection.send(render.encode_piece(self.head.framing, data))

    @property
    def can_splice_request(self) -> bool:
        """Whether the rest of a body with Content-Length may go past the codec; if not, its pieces are handed in."""
        # What may have to be sent once more is copied.
        return self._connection is not None and self._connection.can_take_splice and self._replay is None

    def splice_request(self, source: Stream) -> Splice | None:
        """Return that way, None where there is none."""
        if self._connection is None or not (self.can_splice_request and source.can_splice):
            return None
        return Splice(self._context.pipes, source, self._connection.stream)

    def on_request_spliced(self, size: int) -> None:
        self.body_bytes_up += size

    def on_request_end(self, trailers: Fields) -> None:
        """All of the request has come; ``trailers`` are those of a chunked one."""
        connection = self._connection
        assert connection is not None
        if trailers:
            self._trailers_up = passable_trailers(trailers, self.head.fields)
        connection.send(render.encode_end(self.head.framing, self._trailers_up))
        connection.await_response()

    # -- from the upstream's connection

    def on_connected(self) -> None:
        connection, upstream = self._connection, self._upstream
        assert connection is not None and upstream is not None
        self._send_request(connection, upstream)

    def on_upstream_drained(self) -> None:
        """The upstream has caught up with the request's body."""
        self._client.continue_request()

    def on_upstream_deadline(self) -> None:
        error = UpstreamError(
            504, "the upstream is too slow", detail=f"{self._upstream_url}: {self.phase.value} too long"
        )
        if self._is_its_fault(error):
            self._note_failure()
        self._on_failed_attempt(error)

    def on_upstream_failed(self, error: UpstreamError) -> None:
        if self._is_its_fault(error):
            self._note_failure()
        if self._withheld and self._freshened is None:
            self._ask_again(error.detail)
        else:
            self._on_failed_attempt(error)

    # -- attempts

    def _attempt(self, service: ServiceRuntime) -> None:
        """Send the request to an upstream that was not tried yet; or wait until there is room for it.

        Raises:
            ExchangeError: there is none.
        """
        context = self._context
        upstream = service.only
        if upstream is None or self._tried or not context.health[upstream.index]:
            try:
                upstream = self._pick_upstream(service)
            except NoRoomError:
                self._wait_for_room(service)
                return
        else:
            context.row.upstream_begin(upstream.index)
        self._upstream = upstream
        self._tried = (*self._tried, upstream.index)
        pooled = None
        if not self._fresh_retried:
            # What cannot be sent once more is not risked on a connection that may be dead.
            head = self.head
            must_be_alive = head.method not in IDEMPOTENT_METHODS or head.framing is not _NONE
            pooled = context.idle_connection(upstream, must_be_alive)
        if pooled is not None:
            self._connection = pooled
            pooled.reuse(self)
            self._send_request(pooled, upstream)
            return
        self._go(_CONNECTING)
        self._connection = connection = context.new_connection(upstream)
        if upstream.proxy_protocol:
            connection.preamble = render_proxy_header(upstream.proxy_protocol, self._client.find_endpoints())
        connection.connect(self)

    def _pick_upstream(self, service: ServiceRuntime) -> UpstreamRuntime:
        """Return the one to try, the exchange counted there."""
        try:
            return self._pick_open(service)
        except ExchangeError as error:
            if not self._retries or isinstance(error, NoRoomError):
                raise
            last = self._context.selector.pick_ejected(service, self._tried)
            if last is None:
                raise
            if service.affinity is not None:  # sessions begin where it is open
                self._session_lines, self._whole_from = b"", _HTTP_1_1
            return last

    def _pick_open(self, service: ServiceRuntime) -> UpstreamRuntime:
        if service.affinity is None:
            upstream = self._context.selector.pick(service, self._tried)
        else:
            upstream = self._pick_by_affinity(service, service.affinity)
        if upstream is None and self._fresh_retried and service.room is None:
            last = self._upstream  # the only one; its pooled connection had gone stale, and it was not asked anew yet
            if last is not None and self._tried.count(last.index) == 1:
                upstream = last
                self._context.row.upstream_begin(upstream.index)
        if upstream is None:
            raise UpstreamError(502, "the upstream failed", detail="no other upstream to try", retryable=False)
        return upstream

    def _pick_by_affinity(self, service: ServiceRuntime, affinity: Affinity) -> UpstreamRuntime | None:
        """Pick the upstream that the request belongs to, and note what its response is to say about the session."""
        selector, tried = self._context.selector, self._tried
        position = affinity.find_home(self.head)
        home = None if position is None else service.upstreams[position]
        stays = home is not None and home.index not in tried and selector.keeps_sessions(home)
        upstream = selector.pick_home(service, home) if home is not None and stays else None
        if upstream is None:
            try:
                upstream = selector.pick(service, tried, affinity.key_of(self.head, self._client.address))
            except ExchangeError as error:
                if not stays or isinstance(error, NoRoomError):
                    raise
            if upstream is None and stays:
                # It drains, so nobody chooses it but its sessions; these wait until it has room, as at any other.
                raise NoRoomError(f"no room at the upstream of a session of service {service.config.name}")
        if upstream is not None:
            # A session whose upstream is but full goes back there with its next request.
            self._session_lines = b"" if stays else affinity.lines_for(upstream.position)
            self._whole_from = _NEVER if self._session_lines else _HTTP_1_1
        return upstream

    def _send_request(self, connection: UpstreamConnection, upstream: UpstreamRuntime) -> None:
        """The connection is there: send the head and what is kept of the body, then let the rest flow."""
        self._go(_AWAITING_HEAD)
        head, context, cache = self.head, self._context, self._cache
        if cache is None:
            wire = render_upstream_request(context, self._client, head, upstream)
        else:
            altered, target = cache.fields_to_forward(context.loop.wall_s), cache.target_to_forward(head.path)
            wire = render_upstream_request(context, self._client, head, upstream, altered, target, is_cached=True)
        if not self.request_complete:
            connection.send_head(head, wire)
            for piece in self._replay or ():
                connection.send(render.encode_piece(head.framing, piece))
            self._client.continue_request()
            return
        self.takes_whole = cache is None and head.version >= self._whole_from
        if self._replay:
            wire += b"".join([render.encode_piece(head.framing, piece) for piece in self._replay])
        if head.framing is _CHUNKED:
            wire += render.encode_end(_CHUNKED, self._trailers_up)
        connection.send_whole(head, wire)

    def _ask_again(self, why: str) -> None:
        """Ask once more, for the whole: what came is of no use with what the cache has stored.

        The upstream has answered, so that this is no retry, and that one may be asked again. The request is a GET or
        HEAD without a body; to its second response this does not happen.
        """
        cache, service = self._cache, self._service
        assert cache is not None and service is not None
        self._abandon_upstream()
        cache.ask_again()
        self._tried = self._tried[:-1]
        log.info("%s (%s, asked again)", why, describe_request(self.head))
        try:
            self._attempt(service)
        except ExchangeError as error:
            self._fail(error)

    def _keep_for_replay(self, data: bytes) -> None:
        assert self._replay is not None
        self._replay.append(data)
        assert self._connection is not None
        is_final = self.head.method not in IDEMPOTENT_METHODS and self._connection.sent_bytes
        if is_final or self.body_bytes_up > _MAX_REPLAY_BYTES:
            self._replay = None

    def _abandon_upstream(self) -> None:
        """Give up the attempt: its connection is in the middle of a message and cannot be used again."""
        if self._cache is not None:
            self._cache.abort()
            self._withheld, self._freshened = False, None
        connection = self._connection
        if connection is not None:
            connection.close()
            self._release_upstream()
        elif self.phase is _QUEUED and self._service is not None:
            self._context.rooms.leave(self, self._service)

    def _release_upstream(self) -> None:
        """The upstream has nothing to do with this exchange any more."""
        if self._connection is not None or self._tunnel is not None:
            self._connection = self._tunnel = None
            assert self._upstream is not None
            self._context.row.upstream_end(self._upstream.index)

    # -- waiting for room (net.room.Queued)

    def _wait_for_room(self, service: ServiceRuntime) -> None:
        """All upstreams are full: wait in the queue, or go on waiting there.

        Raises:
            NoRoomError: too many wait already.
        """
        if self.phase is _QUEUED:
            return
        self._context.rooms.enter(self, service, is_retry=self._upstream is not None)
        self._go(_QUEUED)

    def may_ask(self, upstream: UpstreamRuntime) -> bool:
        return upstream.index not in self._tried

    def on_turn(self) -> None:
        service = self._service
        assert service is not None and service.room is not None
        try:
            self._attempt(service)
        except ExchangeError as error:
            service.room.turn = None  # its client's next request is another one
            self._fail(error)

    def on_wait_over(self, error: NoRoomError) -> None:
        self._fail(error)

    # -- failed ones

    def _is_its_fault(self, error: UpstreamError) -> bool:
        """Tell whether a failed attempt speaks against the upstream, rather than against this machine or the client."""
        connection = self._connection
        if connection is None or error.status == _SERVICE_UNAVAILABLE:
            return False
        if self.phase is _CONNECTING:
            return True
        if error.status == _GATEWAY_TIMEOUT:
            # A response that has begun may be silent for as long as there is nothing to tell.
            return not self.response_begun
        # It may have been tired of a client that does not go on with its request, or does not take its response. And
        # a pooled connection may end whenever it likes.
        is_clients = not self.request_complete or connection.was_paused
        return not is_clients and (not connection.reused or bool(connection.response_bytes))

    def _note_failure(self) -> None:
        if self._upstream is not None:
            self._context.attempts.failed(self._upstream.index)

    @property
    def _upstream_url(self) -> str:
        return self._upstream.url if self._upstream is not None else ""

    def _on_failed_attempt(self, error: UpstreamError) -> None:
        """The upstream failed: send the request to another one where that is safe."""
        connection, upstream, service = self._connection, self._upstream, self._service
        assert connection is not None and upstream is not None and service is not None
        if connection.refused:
            self._context.report_refused(upstream)
        verdict = self._judge_retry(error, connection, service)
        self._abandon_upstream()
        if verdict is RetryVerdict.RETRY_FRESH:
            has_place = service.room is not None or service.backups or service.affinity is not None
            self._may_be_gone = bool(has_place and not self._fresh_retried)
            if self._may_be_gone:
                # That one has not failed: there may be room nowhere else, or but a backup; and keys and sessions stay.
                self._tried = self._tried[:-1]
            self._fresh_retried = True
        elif verdict is RetryVerdict.RETRY:
            self._may_be_gone = False
            self._retries += 1
        else:
            log.warning("%s (%s, %s)", error.detail, describe_request(self.head), verdict.value)
            self._fail(error)
            return
        try:
            self._attempt(service)
        except ExchangeError as nobody:
            # The first failure says more to the client than that there is nobody else.
            if verdict is RetryVerdict.RETRY:
                self._context.retries.give_back()
            log.warning("%s (%s, %s)", error.detail, describe_request(self.head), nobody.detail)
            self._fail(error)
            return
        log.info("%s (%s, %s)", error.detail, describe_request(self.head), verdict.value)
        self._context.row.add(Counter.RETRIES)

    def _judge_retry(
        self, error: UpstreamError, connection: UpstreamConnection, service: ServiceRuntime
    ) -> RetryVerdict:
        """Return whether to try again; a retry has been paid for out of the worker's budget."""
        is_gone = self._may_be_gone and connection.refused  # its pooled connections ended because it did
        is_stale = connection.reused and not connection.response_bytes and error.status != _GATEWAY_TIMEOUT
        attempt = FailedAttempt(
            method=self.head.method,
            retryable=error.retryable,
            response_begun=self.response_begun,
            sent_bytes=connection.sent_bytes,
            body_replayable=self._replay is not None or not self.body_bytes_up,
            stale_connection=is_stale or is_gone,
            retries_left=service.config.retries - self._retries,
            fresh_retried=self._fresh_retried and not is_gone,
        )
        verdict = judge_retry(attempt)
        if verdict is RetryVerdict.RETRY and not self._context.retries.spend():
            return RetryVerdict.OVER_BUDGET
        return verdict
