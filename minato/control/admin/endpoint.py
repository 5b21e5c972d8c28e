"""The admin API's socket and its connections: bound and dropped with the configs, bounded, in the master's loop."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Mapping
from ipaddress import ip_address

from minato.config.model import ListenAddress
from minato.control.admin.answer import Answer, render_answer
from minato.control.admin.connection import AdminConnection
from minato.control.admin.routes import Routes
from minato.control.listeners import Listeners
from minato.net.bound import BoundListener
from minato.net.loop import READ, Loop

log = logging.getLogger("minato.admin")

MAX_CONNECTIONS = 64
_ACCEPTS_PER_EVENT = 16
_ACCEPT_PAUSE_S = 0.5
_OUT_OF_RESOURCES = frozenset([errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])


class AdminEndpoint:
    """Serves one address, or none.

    It runs in the master's loop, which must never wait: what a client may send and how long it may take are bounded,
    and so is what one turn does for one client. Beyond MAX_CONNECTIONS the client goes that has kept its request back
    for the longest, so that those that drip keep nobody out.
    """

    def __init__(self, loop: Loop, routes: Routes) -> None:
        self._loop = loop
        self._routes = routes
        self._listeners = Listeners()
        self._address: ListenAddress | None = None
        self._connections: dict[AdminConnection, None] = {}  # the oldest first
        self._resume = loop.timer(self._watch)

    def __repr__(self) -> str:
        return f"<AdminEndpoint {self._address}, {len(self._connections)} connections>"

    def bind(self, address: ListenAddress | None, tries: int = 1) -> None:
        """Bind a config's address, unless it is bound already; nobody is accepted there before ``serve``.

        Raises:
            BootError: that cannot be done; then nothing has changed.
        """
        if address is not None:
            self._listeners.bind([address], 1, tries)

    def bound(self) -> dict[tuple[int, ListenAddress], BoundListener]:
        """Return what is bound, for another master to adopt."""
        return self._listeners.bound()

    def adopt(self, bound: Mapping[tuple[int, ListenAddress], BoundListener]) -> None:
        """Take over what another master bound."""
        self._listeners.adopt(bound)

    def serve(self, address: ListenAddress | None) -> None:
        """Serve this address, which is bound, and none else; requests that came by the old one are answered."""
        if address == self._address:
            self.drop_others()  # what was adopted and is not wanted: it would take connections that nobody accepts
            return
        if self._address is not None:
            self._accept(MAX_CONNECTIONS)
            self._unwatch()
            for connection in list(self._connections):
                connection.finish()
        self._address = address
        self.drop_others()
        if address is not None:
            self._watch()
            _warn_if_open(address)

    def drop_others(self) -> None:
        """Close what is bound and not served: of the config before, or of one that was given up."""
        self._listeners.keep_only([self._address] if self._address is not None else [])

    def forget(self) -> None:
        """In a new worker: close the copies of everything."""
        self._listeners.close()
        for connection in self._connections:
            connection.forget()
        self._connections.clear()

    def close(self) -> None:
        """End everything at once."""
        self.serve(None)
        for connection in list(self._connections):
            connection.close()

    def _socket(self) -> socket.socket | None:
        bound = self._listeners.of_slot(0, [self._address]) if self._address is not None else ()
        return bound[0].sock if bound else None

    def _watch(self) -> None:
        if (sock := self._socket()) is not None:
            self._loop.add(sock.fileno(), READ, lambda _: self._accept(_ACCEPTS_PER_EVENT))

    def _unwatch(self) -> None:
        self._resume.cancel()
        if (sock := self._socket()) is not None:
            self._loop.remove(sock.fileno())

    def _accept(self, most: int) -> None:
        listening = self._socket()
        if listening is None:
            return
        for _ in range(most):
            try:
                sock, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _OUT_OF_RESOURCES:
                    continue  # the client gave up while it was waiting
                log.error("cannot accept admin connections: %s", error.strerror)
                self._unwatch()
                self._resume.set(_ACCEPT_PAUSE_S)
                return
            sock.setblocking(False)
            if self._has_room():
                connection = AdminConnection(self._loop, sock, self._routes, self._forget_connection)
                self._connections[connection] = None
            else:
                self._turn_away(sock)

    def _has_room(self) -> bool:
        if len(self._connections) >= MAX_CONNECTIONS:
            oldest = next((connection for connection in self._connections if connection.is_waiting), None)
            if oldest is None:
                return False
            oldest.close()
        return True

    def _turn_away(self, sock: socket.socket) -> None:
        answer = Answer(503, {"error": "too many requests are under way"}, ((b"retry-after", b"1"),))
        try:
            sock.send(render_answer(answer, None, self._loop.wall_s, close=True))
            sock.shutdown(socket.SHUT_WR)
            sock.recv(65_536)  # what it has sent already would turn the close into a reset
        except OSError:
            pass  # it is turned away all the same
        sock.close()

    def _forget_connection(self, connection: AdminConnection) -> None:
        self._connections.pop(connection, None)


def _warn_if_open(address: ListenAddress) -> None:
    if not ip_address(address.host).is_loopback:
        log.warning("the admin API on %s asks nobody for a password: let only trusted machines reach it", address)
