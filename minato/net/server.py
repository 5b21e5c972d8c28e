"""The server of one worker: accepts clients, keeps the set of connections, drains and stops."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from minato.caching.purge import PurgeRequest
from minato.config.model import Config, ListenAddress
from minato.net.accept_wait import AcceptWait
from minato.net.bound import BoundListener
from minato.net.context import WorkerContext
from minato.net.downstream import Downstream
from minato.net.introduction import Introduction
from minato.net.loop import EXCLUSIVE, READ, Loop
from minato.net.record import record_refused_head
from minato.net.resolve import ResolvedAddress
from minato.net.runtime import build_routes
from minato.net.scarce import OUT_OF_DESCRIPTORS
from minato.net.services import Services
from minato.protocol.message import Framing
from minato.protocol.proxy_protocol import Endpoints, ProxyHeader
from minato.protocol.render import reason_phrase, render_response
from minato.shared.board import Board
from minato.telemetry.access_log import AccessLog

log = logging.getLogger("minato.server")

# At some 50 us each; who is inside already waits for it.
_ACCEPTS_PER_EVENT: Final = 16
_ACCEPTS_IN_SWEEP: Final = 65_536
_ACCEPT_PAUSE_S: Final = 0.1
# How long a client may take for the rest of its handshake at an address that is dropped: the kernel says its part of it
# again after a second. Less than a reload waits for its old workers, so that the next one finds the address free.
_LINGER_S: Final = 1.5
_TELL_EVERY_S: Final = 10.0
# What the kernel takes for a client beyond what may be on its way. Without it it takes megabytes for each client that
# hardly reads, and to fill those of a thousand makes all others wait.
_MAX_UNSENT_BYTES: Final = 131_072
_MAX_FAILURES: Final = 1024  # in a row; the queue may be full of connections that broke
# What accept(2) says of a connection that broke while it waited; another one may be fine.
_GONE: Final = frozenset(
    [
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
    ]
)
_MAPPED_IPV4: Final = "::ffff:"
_SERVICE_UNAVAILABLE: Final = 503


class Server:
    """Serves the listeners of one slot, and those it is lent from slots without a worker."""

    def __init__(
        self,
        *,
        config: Config,
        loop: Loop,
        board: Board,
        slot: int,
        own: Sequence[BoundListener],
        orphans: Sequence[BoundListener],
        addresses: Mapping[str, tuple[ResolvedAddress, ...]],
        wake_health: Callable[[], None],
        access_log: AccessLog | None,
        columns: Mapping[str, int] | None = None,
    ) -> None:
        """Prepare to serve; nothing is accepted before `start`.

        Args:
            config: of this generation.
            loop: the worker's loop.
            board: of this generation.
            slot: this worker's row on the board.
            own: the listeners of its slot.
            orphans: listeners of slots without a worker, shared with the other workers.
            addresses: of the upstreams, by Upstream.key.
            wake_health: tells the health checker that a refused connection was counted.
            access_log: None when it is off.
            columns: of the upstreams on the board, each address of a name its own; None: in the order of the config.
        """
        self._loop = loop
        self._row = board.row(slot)
        self._limit = config.limits.connections
        self._header_timeout_s = config.timeouts.client_header_s
        self._routes = build_routes(config)
        self._introduced = config.introduced_addresses()
        self._services = Services(config, slot, addresses, columns, board.active)
        self._context = WorkerContext(
            config=config,
            loop=loop,
            board=board,
            row=self._row,
            services=self._services.runtimes,
            access_log=access_log,
            wake_health=wake_health,
        )
        self._caps_clients = self._context.per_client.is_set
        self._own = list(own)
        self._orphans = list(orphans)
        self._accept_wait = AcceptWait(config.limits.accept_wait_s)
        self._told_s: dict[str, float] = {}  # when, by what was told
        self._accepting: dict[int, BoundListener] = {}
        self._clients: set[Downstream | Introduction] = set()
        self._forget_client = self._forget  # one object for all connections
        self._resume = loop.timer(self._resume_accepting)
        self._deadline = loop.timer(self._on_drain_deadline)
        self._on_drained: Callable[[], None] | None = None
        self._lingering: frozenset[ListenAddress] = frozenset()
        self._linger = loop.timer(self._end_linger)
        self._on_lingered: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<Server {len(self._accepting)} listeners, {len(self._clients)} connections, {self._context.pool!r}>"

    def start(self) -> None:
        """Begin to accept."""
        for listener in self._own:
            self._listen(listener, READ)
        self.adopt(self._orphans)

    def adopt(self, orphans: Sequence[BoundListener]) -> None:
        """Accept from these as well; other workers do too, so only one is woken for each connection."""
        for listener in orphans:
            self._listen(listener, READ | EXCLUSIVE)

    def release(self, orphans: Sequence[BoundListener]) -> None:
        """Accept no more from adopted listeners, and close this worker's copies."""
        for listener in orphans:
            self._unlisten(listener)
            listener.sock.close()

    def drain(self, deadline_s: float, on_drained: Callable[[], None], *, sweep: bool = False) -> None:
        """Stop accepting, finish what is under way, then call ``on_drained``.

        Idle connections stay open and are told to close with their next response; what is left at the deadline is cut.

        Args:
            deadline_s: from now.
            on_drained: called once.
            sweep: accept what waits in the queues first.
        """
        for listener in list(self._accepting.values()):
            if sweep:
                self._accept(listener, _ACCEPTS_IN_SWEEP)
            if listener.address not in self._lingering:
                self._unlisten(listener)
        if not self._lingering:
            self._resume.cancel()
        self._context.draining = True
        self._context.close_idle()
        self._on_drained = on_drained
        self._deadline.set(deadline_s)
        self._loop.call_soon(self._check_drained)

    def linger(self, addresses: Collection[ListenAddress], on_lingered: Callable[[], None]) -> None:
        """Before `drain`: go on accepting at some addresses for a moment, in which nobody new is invited there.

        They have no successor, so a client whose handshake has begun would find the door closed.

        Args:
            addresses: of those listeners.
            on_lingered: called when nothing is accepted any more, to close them; before ``on_drained``.
        """
        self._lingering = frozenset(addresses)
        self._on_lingered = on_lingered
        self._linger.set(_LINGER_S)

    def _end_linger(self) -> None:
        self._resume.cancel()
        for listener in list(self._accepting.values()):
            self._accept(listener, _ACCEPTS_IN_SWEEP)
            self._unlisten(listener)
        self._resume.cancel()  # the sweep may have failed
        self._lingering = frozenset()
        self._on_lingered()
        self._check_drained()

    def shed(self) -> None:
        """Give memory back that no request needs: what is stored."""
        self._context.shed()

    def close_idle(self) -> None:
        """Close connections with nothing under way, for a worker without a successor; a request that came is served."""
        for client in list(self._clients):
            if client.is_idle:
                client.on_readable()
            if client.is_idle:
                client.close()

    def stop(self) -> None:
        """Close everything at once."""
        for listener in list(self._accepting.values()):
            self._unlisten(listener)
        self._resume.cancel()
        self._linger.cancel()
        self._deadline.cancel()
        self._on_drained = None
        self._close_clients()
        self._context.draining = True
        self._context.give_up_unattended()
        self._context.close_idle()
        self._context.pipes.close()

    def reopen_logs(self) -> None:
        """Open the access log's file anew, after it was moved away."""
        if self._context.access_log is not None:
            self._context.access_log.reopen()

    def purge(self, requests: Sequence[PurgeRequest]) -> int:
        """Carry out purges that were asked for together; return how many stored responses they found."""
        cache = self._context.cache
        return cache.purge(requests, self._loop.wall_s) if cache is not None else 0

    def change_addresses(self, key: str, places: Sequence[tuple[str, int]]) -> None:
        """An upstream's name has other addresses: new requests go there, what is in flight ends where it is.

        Args:
            key: Upstream.key, as configured.
            places: addresses, and the columns of the board that they have.
        """
        before = self._services.columns_of(key)
        for origin in self._services.change(key, places):
            for connection in self._context.pool.retire(origin):
                connection.close()
        # Those that stay have failed as often in a row as they had.
        self._context.attempts.forget(column for _, column in before ^ self._services.columns_of(key))
        self._context.rooms.on_upstreams_changed()

    # -- accepting

    def _listen(self, listener: BoundListener, events: int) -> None:
        # What is accepted inherits it: no call for each connection.
        listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MAX_UNSENT_BYTES)
        self._accepting[listener.sock.fileno()] = listener
        if not self._resume.is_set:
            self._watch(listener, events)

    def _watch(self, listener: BoundListener, events: int) -> None:
        self._loop.add(listener.sock.fileno(), events, lambda _: self._accept(listener, _ACCEPTS_PER_EVENT))

    def _unlisten(self, listener: BoundListener) -> None:
        fd = listener.sock.fileno()
        if self._accepting.pop(fd, None) is not None:
            self._loop.remove(fd)

    def _accept(self, listener: BoundListener, most: int) -> None:
        # What socket.accept does, less the wrapping of the socket's numbers in enums: 2 us of 10.
        accept, family = listener.sock._accept, int(listener.sock.family)  # type: ignore[attr-defined]
        begin = self._await_introduction if listener.address in self._introduced else self._serve
        failures = 0
        for _ in range(most):
            try:
                fd, peer = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _GONE and failures < _MAX_FAILURES:
                    failures += 1
                    continue
                if error.errno == errno.EINVAL:  # it listens no more: another process has shut it down
                    self._unlisten(listener)
                    return
                self._pause_accepting(error)
                return
            failures = 0
            sock = socket.SocketType(family, socket.SOCK_STREAM, 0, fd)
            sock.setblocking(False)
            peer_address = peer[0].removeprefix(_MAPPED_IPV4)
            self._accept_wait.look(sock, self._loop.now_s)
            if self._accept_wait.is_too_long:
                self._tell("limits.accept_wait: connections wait too long to be accepted; further clients get a 503")
                self._turn_away(sock, peer_address, "overloaded")
                continue
            begin(sock, peer_address, listener)

    def _serve(
        self, sock: socket.SocketType, peer: str, listener: BoundListener, told: Endpoints | None = None
    ) -> None:
        """Serve a connection; ``told`` is what its PROXY header said."""
        if len(self._clients) >= self._limit:
            self._tell("limits.connections: all %d are in use; further clients get a 503", self._limit)
            self._turn_away(sock, peer)
            return
        if self._caps_clients and not self._enter(peer):
            self._tell("limits.connections_per_client: %s has as many as it may; further ones get a 503", peer)
            self._turn_away(sock, peer)
            return
        try:
            client = Downstream(self._context, sock, peer, self._routes[listener.address], self._forget_client)
        except OSError as error:  # the kernel watches no further socket (ENOMEM, ENOSPC)
            sock.close()
            if self._caps_clients and not self._context.is_trusted(peer):
                self._context.per_client.leave(peer)
            self._pause_accepting(error)
            return
        client.told = told
        self._clients.add(client)
        self._row.connection_begun()

    def _enter(self, peer: str) -> bool:
        """Count a client's connection. That of a trusted proxy is for many; their requests are counted one by one."""
        return self._context.is_trusted(peer) or self._context.per_client.enter(peer)

    def _await_introduction(self, sock: socket.SocketType, peer: str, listener: BoundListener) -> None:
        """Read the PROXY header of a connection first. Where there are trusted proxies, nobody else's is believed."""
        context = self._context
        if len(self._clients) >= self._limit:
            self._tell("limits.connections: all %d are in use; further clients get a 503", self._limit)
            self._turn_away(sock, peer)
        elif context.trusts_some and not context.is_trusted(peer):
            self._tell("PROXY protocol: %s is none of trusted_proxies; its connections are closed", peer)
            sock.close()
        else:
            self._clients.add(
                Introduction(
                    self._loop,
                    sock,
                    peer,
                    self._header_timeout_s,
                    lambda waiting, sock, header: self._introduce(waiting, sock, header, listener),
                    self._forget_introduction,
                )
            )
            self._row.connection_begun()

    def _introduce(
        self, waiting: Introduction, sock: socket.SocketType, header: ProxyHeader, listener: BoundListener
    ) -> None:
        """The header came: serve the connection as its client's."""
        self._clients.discard(waiting)
        self._row.connection_over()
        told = header.endpoints
        self._serve(sock, waiting.peer if told is None else told.source, listener, told)
        self._check_drained()

    def _tell(self, message: str, *values: object) -> None:
        """Log what strangers can bring about again and again, but not each time."""
        now_s = self._loop.now_s
        if now_s - self._told_s.get(message, -_TELL_EVERY_S) >= _TELL_EVERY_S:
            self._told_s[message] = now_s
            log.warning(message, *values)

    def _turn_away(self, sock: socket.SocketType, peer: str, public: str = "too many connections") -> None:
        """Answer a connection that is too much with a 503, as far as that goes without waiting."""
        record_refused_head(self._context, peer, _SERVICE_UNAVAILABLE, 0, public)
        body = public.encode("ascii") + b"\n"
        fields = [(b"content-type", b"text/plain"), (b"retry-after", b"1"), (b"date", self._context.date)]
        phrase = reason_phrase(_SERVICE_UNAVAILABLE)
        try:
            sock.send(render_response(_SERVICE_UNAVAILABLE, phrase, fields, Framing.LENGTH, len(body), b"close") + body)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(65_536)  # what it has sent already would turn the close into a reset
        except OSError:
            pass  # it is turned away all the same
        sock.close()

    def _pause_accepting(self, error: OSError) -> None:
        """Accept nothing for a moment, instead of being woken for the same connection for ever."""
        self._tell("cannot accept connections: %s", error.strerror)
        if error.errno in OUT_OF_DESCRIPTORS:
            self._context.make_room()
        for fd in self._accepting:
            self._loop.remove(fd)
        self._resume.set(_ACCEPT_PAUSE_S)

    def _resume_accepting(self) -> None:
        for listener in self._accepting.values():
            self._watch(listener, READ if listener in self._own else READ | EXCLUSIVE)

    # -- ending

    def _forget_introduction(self, waiting: Introduction, reason: str) -> None:
        if reason:
            self._tell("PROXY protocol: a connection of %s was closed: %s", waiting.peer, reason)
        self._clients.discard(waiting)
        self._row.connection_over()
        self._check_drained()

    def _forget(self, client: Downstream) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._row.connection_over()
            if self._caps_clients and not self._context.is_trusted(client.peer):
                self._context.per_client.leave(client.peer)
            if self._on_drained is not None:
                self._check_drained()

    def _check_drained(self) -> None:
        if not self._clients and not self._lingering and self._on_drained is not None:
            on_drained, self._on_drained = self._on_drained, None
            self._deadline.cancel()
            self._context.give_up_unattended()
            self._context.close_idle()
            on_drained()

    def _on_drain_deadline(self) -> None:
        if self._clients:
            log.warning("%d connections cut at the drain deadline", len(self._clients))
        self._close_clients()
        self._check_drained()

    def _close_clients(self) -> None:
        for client in list(self._clients):
            client.close()
