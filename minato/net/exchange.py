"""The exchange: one request and its response, from the route to the last byte; the one state machine for both codecs.

    route -> cache lookup -> [answer] -> pick an upstream -> connect or reuse -> send -> relay -> [store] -> log

The client's connection (`Downstream`) hands in the request's pieces, the upstream's connection the response's. Both
sides stream: a piece is passed on as it comes, and a side that is slow pauses the other. What ends an exchange early
ends it in `_fail`: an answer if nothing went downstream yet, a visible cut otherwise. The half that faces the upstream
is in net.uplink.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from minato.caching.answer import CachedAnswer
from minato.caching.request import SAFE_METHODS
from minato.decide.exchange import (
    Phase,
    check_transition,
)
from minato.decide.sticky import keep_private
from minato.errors import ExchangeError, RequestError, Source, UpstreamError
from minato.net.cache_session import CacheSession
from minato.net.client import Client, Nobody
from minato.net.context import WorkerContext
from minato.net.forwarding import build_cache_request
from minato.net.hits import keep_hot
from minato.net.last_hop import LAST_HOP_METHODS, answer_as_last_hop
from minato.net.record import record_access
from minato.net.routing import find_service
from minato.net.runtime import ServiceRuntime
from minato.net.sharing import Sharing
from minato.net.splice import Splice
from minato.net.stream import Stream
from minato.protocol import render
from minato.protocol.forward import forward_interim_fields, forward_response_head, forward_response_lines
from minato.protocol.message import Fields, Framing, RequestHead, ResponseHead
from minato.protocol.render import Persistence
from minato.protocol.trailers import announced_trailers, passable_trailers
from minato.shared.board import Counter

_SWITCHING_PROTOCOLS: Final = 101
_FIRST_FINAL: Final = 200
_FIRST_SERVER_ERROR: Final = 500
_NO_CONTENT: Final = 204
_NOT_MODIFIED: Final = 304
_HTTP_1_1: Final = 11
_CHUNKED: Final = Framing.CHUNKED
_NO_TRAILERS: Final[Fields] = []  # never added to
_KEEP: Final = Persistence.KEEP
_ROUTING: Final = Phase.ROUTING
_AWAITING_HEAD: Final = Phase.AWAITING_HEAD
_RELAYING: Final = Phase.RELAYING
_DONE: Final = Phase.DONE
_BODILESS: Final = frozenset([_NO_CONTENT, _NOT_MODIFIED])


class Exchange(Sharing):
    """One request and its response: the half that faces the client, on top of the one that faces the upstream.

    Attributes:
        began_s: monotonic second at which its head was read.
    """

    # Defaults of the class, as in `Uplink`.
    _persistence = Persistence.KEEP
    _must_close = False
    _trailing_head: ResponseHead | None = None  # of a response whose trailer fields go on

    def __init__(self, context: WorkerContext, client: Client, head: RequestHead, request_complete: bool) -> None:
        self.head = head
        self.request_complete = request_complete
        self.phase = _ROUTING
        self._context = context
        self._client = client
        self.began_s = context.loop.now_s
        self._status = 0
        context.row.request_begun()

    def __repr__(self) -> str:
        return f"<Exchange {self.head.method!r} {self.head.target[:80]!r} {self.phase.value}>"

    # -- from the client's connection

    def begin(self, body: bytes = b"") -> None:
        """Route the request and answer or forward it; ``body`` is what has come of its body."""
        try:
            self._service = service = self._route()
            if self.head.method in LAST_HOP_METHODS and self._answer_as_last_hop():
                return
            if body or not self.request_complete:
                self._replay = [body] if body else []
                self.body_bytes_up = len(body)
            if self._context.cache is None or not self._answer_from_cache(service):
                self._attempt(service)
        except ExchangeError as error:
            self._fail(error)

    def on_request_malformed(self, error: RequestError) -> None:
        """The rest of the request cannot be read, or does not come."""
        self._fail(error)

    def on_client_left(self) -> None:
        """The client's connection is gone; it is not blamed on the upstream. The caller closes its own side."""
        if self.phase is _DONE or self._go_on_without_client():
            return
        self._abandon_upstream()
        self._end("the client left")

    # -- from the upstream's connection

    def on_response_head(self, head: ResponseHead) -> None:
        if head.status == _SWITCHING_PROTOCOLS:
            if head.upgrade:
                self._open_tunnel(head)
            else:
                self.on_upstream_failed(UpstreamError(502, "the upstream failed", detail="a 101 without Upgrade"))
        elif head.status < _FIRST_FINAL:
            self._relay_interim(head)
        elif self._cache is None or not self._answer_instead(self._cache, head):
            self._relay_head(head)

    def on_response_body(self, data: bytes) -> None:
        if self._cache is not None:
            self._cache.write(data, self._context.loop.wall_s)
            if self._withheld:
                return
        self._body_bytes_down += len(data)
        client = self._client
        client.write(data if self._framing_down is not _CHUNKED else render.encode_piece(_CHUNKED, data))
        if self._connection is not None and self._is_held_back:
            self._hold_back()
        if isinstance(client, Nobody):
            self._give_up_if_useless()

    def splice_response(self, source: Stream) -> Splice | None:
        """Return the way for the rest of a body with Content-Length, None where its pieces are to be handed in."""
        cache = self._cache
        # Who shares it has to see every byte, also once it is stored no longer.
        is_storing = cache is not None and (cache.is_storing or cache.is_awaited)
        sink = self._client.sink
        is_relayed = self._framing_down is Framing.LENGTH and not (is_storing or self._withheld)
        if not is_relayed or sink is None or not source.can_splice:
            return None
        return Splice(self._context.pipes, source, sink)

    def on_response_spliced(self, size: int) -> None:
        self._body_bytes_down += size

    def on_response_end(self, trailers: Fields = _NO_TRAILERS) -> None:
        if self._connection is not None:
            self._connection = None
            assert self._upstream is not None
            # Where the cache answers instead, the status is none yet: what matters was noted at the head.
            self._context.row.upstream_answered(self._upstream.index, self._status)
        if self._withheld:
            self._end_withheld()
            return
        if self._cache is not None:
            self._cache.commit(self._context.loop.wall_s)
        if self._framing_down is _CHUNKED:
            head = self._trailing_head
            passable = passable_trailers(trailers, head.fields) if trailers and head is not None else None
            self._client.write(render.encode_end(_CHUNKED, passable))
        self._end("")
        self._client.finish_exchange(self._persistence)

    def on_whole_response(self, head: ResponseHead, data: bytes, body_at: int, payload_bytes: int) -> None:
        """All of the response came at once, in ``data``: relay it as it is, and end. Told only where ``takes_whole``.

        What `on_response_head`, `on_response_body` and `on_response_end` do for such a response, in one.
        """
        context, client, upstream = self._context, self._client, self._upstream
        assert upstream is not None
        if self.phase is not _AWAITING_HEAD:
            check_transition(self.phase, _RELAYING)
        if self.head.keep_alive and not context.draining:
            persistence = _KEEP
            front = head.relayed or forward_response_head(head, context.date, closes=False)
        else:
            persistence = Persistence.CLOSE
            front = forward_response_head(head, context.date, closes=True)
        # Counted before the client can know of it.
        self.phase = _DONE
        self._connection = None
        context.row.forwarded(upstream.index, head.status, self.body_bytes_up, payload_bytes)
        if context.access_log is not None:
            record_access(
                context, self.head, client.address, head.status, payload_bytes, self.began_s, upstream, "", ""
            )
        client.write(front + data[body_at:])
        client.finish_exchange(persistence)

    def on_upstream_crash(self) -> None:
        """A bug left the exchange in no known state: unless it is over, its client's connection is closed with it."""
        self._is_broken = True
        self._client.on_exchange_crash(self)

    def on_tunnel_closed(self) -> None:
        tunnel = self._tunnel
        assert tunnel is not None
        self._body_bytes_down = tunnel.bytes_down
        self.body_bytes_up = tunnel.bytes_up
        self._release_upstream()
        self._end("")

    # -- routing and the cache

    def _route(self) -> ServiceRuntime:
        """Return the service; check what can be checked before anything is sent."""
        head, context = self.head, self._context
        index = find_service(self._client.routes, head)
        if index is None:
            raise RequestError(404, "no such service")
        cap = context.body_cap
        if cap and head.length_bytes > cap:
            raise RequestError(413, "the request's body is too large")
        client = self._client
        if client.claims is not None and not client.enter():
            raise ExchangeError(503, "too many connections", source=Source.DOWNSTREAM, fields=((b"retry-after", b"1"),))
        return context.services[index]

    def _answer_as_last_hop(self) -> bool:
        """Answer what may not be forwarded."""
        context = self._context
        answer = answer_as_last_hop(self.head, context.date, traces=context.config.trace)
        if answer is None:
            return False
        self._send_answer(answer)
        return True

    def _answer_from_cache(self, service: ServiceRuntime) -> bool:
        """Answer from the store, or begin to wait for a response that is on its way; tell whether that was possible."""
        context = self._context
        if context.cache is None or self.head.path == b"*":
            return False
        # What may change something is looked at all the same: an upstream may ignore Upgrade (RFC 9110, 7.8).
        if self.head.upgrade and self.head.method in SAFE_METHODS:
            return False
        rules = context.cache_rules[service.index]
        if rules is not None and not rules.enabled:
            return False
        request = build_cache_request(context, self._client.claims, self.head, service.index)
        self._cache = CacheSession(context.cache, request)
        return self._look_up(may_wait=True)

    def _look_up(self, *, may_wait: bool) -> bool:
        cache, row, now_s = self._cache, self._context.row, self._context.loop.wall_s
        assert cache is not None
        answer = cache.look_up(now_s)
        if answer is not None:
            row.add(Counter.CACHE_COLLAPSED if cache.is_collapsed else Counter.CACHE_HITS)
            self._send_answer(answer)
            if cache.is_validation_due and not self._context.draining:
                self._validate_in_background(cache)
            return True
        flight = cache.join(self, now_s) if may_wait else None
        if flight is not None:
            self._wait_for(flight)
            return True
        row.add(Counter.CACHE_MISSES)
        return False

    def _validate_in_background(self, cache: CacheSession) -> None:
        """A stale response answered: have it validated by an exchange that no client waits for (RFC 5861, 3)."""
        assert self._service is not None
        validation = Validation(self._context, self._client, self.head, self._service)
        validation.begin_validation(cache)

    def _send_answer(self, answer: CachedAnswer) -> None:
        """Answer from the store."""
        bodiless = self.head.method == b"HEAD" or answer.status in _BODILESS
        fields = [*answer.fields, (b"via", b"1.1 minato")]
        framing = Framing.NONE
        if not bodiless:
            framing = Framing.LENGTH
            fields = [field for field in fields if field[0] != b"content-length"]
        body, size = answer.body, answer.body_bytes
        head = self._send_head(answer.status, answer.reason, render.render_lines(fields), framing, size)
        self._client.write(body)
        for piece in answer.more:
            self._client.write(piece)
        self._body_bytes_down = size
        if self._cache is not None and self._cache.hit is not None and self._persistence is Persistence.KEEP:
            keep_hot(self._context, self._client, self.head, self._cache.hit, head, body)
        self._end("")
        self._client.finish_exchange(self._persistence)

    def _answer_instead(self, cache: CacheSession, head: ResponseHead) -> bool:
        """Tell whether the cache answers instead of a final response, once that has ended."""
        now_s = self._context.loop.wall_s
        try:
            answer = cache.answer_head(head, now_s)
        except UpstreamError as error:
            self.on_upstream_failed(error)
            return True
        if answer is not None:
            self._note_answer(head.status)
        is_over = head.framing is Framing.NONE  # but for its end, after which the connection can be used again
        if answer is not None and not is_over:
            # A failure. Its body may take as long as it likes, and nobody is going to read it.
            self._abandon_upstream()
            self._send_answer(answer)
            return True
        self._freshened = answer
        self._withheld = answer is not None or cache.begin_completion(head, now_s) or (cache.must_ask_again and is_over)
        if cache.must_ask_again and not is_over:
            self._ask_again("it sent a range that was not asked for")
            return True
        return self._withheld

    def _note_answer(self, status: int) -> None:
        """The upstream has answered, though not in a way that the board's row would hear of."""
        answered = self._context.attempts.answered
        if answered is not None and self._upstream is not None:
            answered(self._upstream.index, status)

    def _end_withheld(self) -> None:
        """A response that is not relayed has ended: answer from the cache."""
        cache, answer = self._cache, self._freshened
        assert cache is not None
        if answer is None:
            answer = cache.answer_completed(self._context.loop.wall_s)
        if answer is None:
            self._ask_again("what it sent is of no use with what is stored")
        else:
            self._send_answer(answer)

    # -- forwarding

    def _relay_interim(self, head: ResponseHead) -> None:
        # RFC 9110, 15.2: "A server MUST NOT send a 1xx response to an HTTP/1.0 client"; and "A proxy MUST forward 1xx
        # responses unless the proxy itself requested the generation of the 1xx response".
        if self.head.version < _HTTP_1_1:
            return
        self._context.row.add(Counter.RESPONSES_1XX)
        self._client.write(render.render_interim(head.status, head.reason, forward_interim_fields(head)))

    def _relay_head(self, head: ResponseHead) -> None:
        self._go(_RELAYING)
        context = self._context
        lines = forward_response_lines(self.head.method, head, context.date)
        if self._cache is not None:
            lines += render.render_lines(self._cache.begin(head, context.loop.wall_s))
        if self._session_lines and head.status < _FIRST_SERVER_ERROR:
            # For this client alone: what is stored or shared is without.
            lines += self._session_lines + keep_private(head.block.end_to_end)
        option = b""
        if head.upgrade and self.head.version >= _HTTP_1_1:
            # RFC 9110, 15.5.22: "The server MUST send an Upgrade header field in a 426 response".
            lines += b"upgrade: %b\r\n" % head.upgrade
            option = b"upgrade"
        framing = head.framing
        if framing is Framing.CLOSE or framing is _CHUNKED:
            framing = render.unknown_length_framing(self.head)
        if head.framing is _CHUNKED and framing is _CHUNKED and self.head.accepts_trailers:
            self._trailing_head = head
            announced = announced_trailers(head.fields)
            if announced:
                lines += b"trailer: %b\r\n" % announced
        self._send_head(head.status, head.reason, lines, framing, head.length_bytes, option)
        if isinstance(self._client, Nobody):
            self._give_up_if_useless()

    def _send_head(
        self, status: int, reason: bytes, lines: bytes, framing: Framing, length_bytes: int, option: bytes = b""
    ) -> bytes:
        """Send the final response's head and return it; from here on the exchange can only be completed or cut.

        ``option``: what Connection says besides.
        """
        self._status = status
        self.response_begun = True
        self._replay = None
        self._framing_down = framing
        # A response that is there before the request is whole may leave the rest of it unread (RFC 9112, 9.3).
        head = self.head
        keep = head.keep_alive and self.request_complete and not (self._context.draining or self._must_close)
        if keep and framing is not Framing.CLOSE:
            self._persistence = Persistence.KEEP
            connection = b"" if head.version >= _HTTP_1_1 else b"keep-alive"
        else:
            self._persistence = Persistence.CLOSE
            connection = b"close"
            if framing is Framing.CLOSE:
                self._client.end_by_close()
        if option:
            connection = connection + b", " + option if connection else option
        wire = render.render_response_head(status, reason, lines, framing, length_bytes, connection)
        self._client.write(wire)
        return wire

    def _open_tunnel(self, head: ResponseHead) -> None:
        """The upstream switches protocols, as the client asked: join the two connections."""
        self._go(Phase.TUNNELLING)
        connection = self._connection
        assert connection is not None
        self._status = head.status
        self._note_answer(head.status)
        self.response_begun = True
        fields = [*forward_interim_fields(head), (b"upgrade", head.upgrade)]
        lines = render.render_lines(fields) + self._session_lines
        self._client.write(render.render_response_head(101, head.reason, lines, Framing.NONE, 0, b"upgrade"))
        self._connection = None
        self._tunnel, to_client, to_upstream = self._client.start_tunnel(connection)
        self._tunnel.begin(to_client, to_upstream, client_ended=self._client.half_closed)

    # -- failing

    def _fail(self, error: ExchangeError) -> None:
        """End the exchange: with an answer where nothing was sent yet, with a cut that shows otherwise."""
        if self.phase is _DONE:
            return
        self._abandon_upstream()
        if self.response_begun:
            self._end(error.detail)
            self._client.abort_exchange()
            return
        status = error.status
        if self._cache is not None and error.source is Source.UPSTREAM:
            answer = self._cache.answer_failure(self._context.loop.wall_s)
            if answer is not None:
                self._send_answer(answer)
                return
            status = self._cache.error_status or status
        body = error.public.encode("ascii") + b"\n"
        fields: Fields = [(b"content-type", b"text/plain"), (b"date", self._context.date), *error.fields]
        self._must_close = error.source is Source.DOWNSTREAM and error.status == 400
        self.request_complete = self._client.discard_request()
        lines = render.render_lines(fields)
        self._send_head(status, render.reason_phrase(status), lines, Framing.LENGTH, len(body))
        if self.head.method != b"HEAD":
            self._client.write(body)
            self._body_bytes_down = len(body)
        self._end(error.detail)
        self._client.finish_exchange(self._persistence)

    def _end(self, failure: str) -> None:
        """Count and log the exchange; nothing but the end of its response is sent after this."""
        self._go(_DONE)
        if self._cache is not None:
            self._end_sharing(self._cache)
        self._context.row.request_over(self._status, self.body_bytes_up, self._body_bytes_down)
        if isinstance(self._client, Nobody):
            self._context.unattended.discard(self)
        elif self._context.access_log is not None:
            self._log(failure)

    def _log(self, failure: str) -> None:
        record_access(
            self._context,
            self.head,
            self._client.address,
            self._status,
            self._body_bytes_down,
            self.began_s,
            self._upstream,
            self._cache.label if self._cache is not None else "",
            failure,
        )


class Validation(Exchange):
    """Validates a stale response that has answered already. No client waits for it, and it counts as no request."""

    def __init__(self, context: WorkerContext, client: Client, head: RequestHead, service: ServiceRuntime) -> None:
        super().__init__(
            context, Nobody(client), head if head.method == b"GET" else replace(head, method=b"GET", memo=None), True
        )
        context.row.request_uncounted()
        self._service = service

    def begin_validation(self, cache: CacheSession) -> None:
        """Validate what the session answered with, soon."""
        context = self._context
        self._cache = cache.begin_validation(self)
        context.unattended.add(self)
        context.row.add(Counter.CACHE_VALIDATIONS)
        context.loop.call_soon(self._run)

    def on_crash(self) -> None:
        """The loop caught an error that nobody expected in ``_run``."""
        self.on_upstream_crash()

    @property
    def _is_useful(self) -> bool:
        return self.phase is not _RELAYING or super()._is_useful

    def _run(self) -> None:
        service = self._service
        if service is None or self.phase is not _ROUTING:  # it was given up before it began
            return
        try:
            self._attempt(service)
        except ExchangeError as error:
            self._fail(error)

    def _end(self, failure: str) -> None:
        self._go(_DONE)
        if self._cache is not None:
            self._end_sharing(self._cache)
        self._context.unattended.discard(self)
