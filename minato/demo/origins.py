"""The demo's origin servers: one child process that serves them all and ends with its parent, however that ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import Sequence
from http.server import ThreadingHTTPServer

from setproctitle import setproctitle

from minato.config.model import Config, Upstream
from minato.demo.pages import DemoHandler
from minato.errors import BootError
from minato.net.resolve import resolve_numeric


class DemoOrigins:
    """The running origins of a demo.

    Args:
        config: every upstream in it gets an origin; each has to be an IP address of this machine.

    Raises:
        BootError: a port is taken, or an upstream cannot be played from here.
    """

    def __init__(self, config: Config) -> None:
        upstreams = {(up.host, up.port): up for service in config.services for up in service.upstreams}
        sockets: list[socket.socket] = []
        try:
            for upstream in upstreams.values():
                sockets.append(_bind(upstream))
            self._pid = _fork_origins(list(upstreams.values()), sockets)
        finally:
            for sock in sockets:
                sock.close()

    def stop(self) -> None:
        """End the child and collect it, unless it ended and was collected already."""
        with contextlib.suppress(ChildProcessError):
            # While nobody collected it, the pid cannot be another process's.
            os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            os.kill(self._pid, signal.SIGTERM)
            os.waitpid(self._pid, 0)


class _OriginServer(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left is no event."""


def _bind(upstream: Upstream) -> socket.socket:
    address = resolve_numeric(upstream.host, upstream.port)
    if address is None or upstream.scheme != "http":
        raise BootError(f"the demo cannot play {upstream.url}: it takes http and an IP address")
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address.sockaddr)
        sock.listen(_OriginServer.request_queue_size)
    except OSError as error:
        sock.close()
        reason = (error.strerror or str(error)).lower()
        raise BootError(f"cannot listen on {upstream.authority} for a demo origin: {reason}") from error
    return sock


def _fork_origins(upstreams: Sequence[Upstream], sockets: Sequence[socket.socket]) -> int:
    parent_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _serve(upstreams, sockets, parent_pid)
        finally:
            os._exit(1)
    return pid


def _serve(upstreams: Sequence[Upstream], sockets: Sequence[socket.socket], parent_pid: int) -> None:
    """In the child: serve until the parent is gone."""
    setproctitle("minato: demo origins")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to take
    for upstream, sock in zip(upstreams, sockets, strict=True):
        handler = type("Handler", (DemoHandler,), {"origin": upstream.authority})
        server = _OriginServer(sock.getsockname()[:2], handler, bind_and_activate=False)
        server.socket.close()
        server.socket = sock
        threading.Thread(target=server.serve_forever, daemon=True).start()
    _await_end(parent_pid)
    os._exit(0)


def _await_end(pid: int) -> None:
    """Return when a process has ended; a pidfd says so however it ended, SIGKILL included."""
    try:
        pid_fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    if os.getppid() == pid:
        select.select([pid_fd], [], [])
