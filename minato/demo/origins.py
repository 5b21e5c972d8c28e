"""The demo's origin servers: one process that serves them all and ends with the last master, however that ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import threading
import time
from collections.abc import MutableMapping, Sequence
from http.server import ThreadingHTTPServer

from setproctitle import setproctitle

from minato.config.model import Config, Upstream
from minato.demo.pages import DemoHandler
from minato.errors import BootError
from minato.net.resolve import resolve_numeric

# Where the master that takes over in a binary upgrade finds the lifeline: its descriptor, then whom the origins play.
LIFELINE_VARIABLE = "MINATO_DEMO_ORIGINS"
_END_WAIT_S = 0.5


class DemoOrigins:
    """The running origins of a demo, which outlive a binary upgrade.

    They serve as long as anybody holds the other end of a pipe, the lifeline: this process, those it forks, and the one
    that it is replaced by.

    Args:
        config: every upstream in it gets an origin; each has to be an IP address of this machine.
        environment: brings the lifeline of origins that run already, and takes it to whom this process executes.

    Raises:
        BootError: a port is taken, or an upstream cannot be played from here.
    """

    def __init__(self, config: Config, environment: MutableMapping[str, str]) -> None:
        self._environment = environment
        self._pid = 0
        self._lifelines, played = _inherit(environment)
        upstreams = {up.authority: up for service in config.services for up in service.upstreams}
        missing = [upstream for authority, upstream in upstreams.items() if authority not in played]
        if missing:
            self._start(missing)
        environment[LIFELINE_VARIABLE] = " ".join([",".join(map(str, self._lifelines)), *sorted({*played, *upstreams})])

    def stop(self) -> None:
        """Let go of the lifeline; wait a moment for the end of the origins, so that their ports are free then."""
        self._environment.pop(LIFELINE_VARIABLE, None)
        for fd in self._lifelines:
            os.close(fd)
        deadline_s = time.monotonic() + _END_WAIT_S  # another master may hold it
        with contextlib.suppress(ChildProcessError):
            while self._pid and os.waitpid(self._pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline_s:
                time.sleep(0.01)

    def _start(self, upstreams: Sequence[Upstream]) -> None:
        sockets: list[socket.socket] = []
        reader, writer = os.pipe()
        try:
            for upstream in upstreams:
                sockets.append(_bind(upstream))
            self._pid = _fork_origins(upstreams, sockets, reader)
            os.set_inheritable(writer, True)
            self._lifelines.append(writer)
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
            for sock in sockets:
                sock.close()


def _inherit(environment: MutableMapping[str, str]) -> tuple[list[int], list[str]]:
    """Return the lifelines that came with this process, and whom the origins at their ends play."""
    numbers, *played = environment.pop(LIFELINE_VARIABLE, "").split() or [""]
    try:
        fds = [int(number) for number in numbers.split(",") if number]
        if all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in fds):
            return fds, played
    except (ValueError, OSError):
        pass
    return [], []  # of nobody who lives


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


def _fork_origins(upstreams: Sequence[Upstream], sockets: Sequence[socket.socket], lifeline: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            _serve(upstreams, sockets, lifeline)
        finally:
            os._exit(1)
    return pid


def _serve(upstreams: Sequence[Upstream], sockets: Sequence[socket.socket], lifeline: int) -> None:
    """In the child: serve until nobody holds the lifeline."""
    _close_all_but(lifeline, *(sock.fileno() for sock in sockets))
    setproctitle("minato: demo origins")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to take
    for upstream, sock in zip(upstreams, sockets, strict=True):
        handler = type("Handler", (DemoHandler,), {"origin": upstream.authority})
        server = _OriginServer(sock.getsockname()[:2], handler, bind_and_activate=False)
        server.socket.close()
        server.socket = sock
        threading.Thread(target=server.serve_forever, daemon=True).start()
    select.select([lifeline], [], [])
    os._exit(0)


def _close_all_but(*kept: int) -> None:
    """Close what was inherited: the lifeline's other end, of all things, and the link of a binary upgrade."""
    for name in os.listdir("/proc/self/fd"):
        if (fd := int(name)) > 2 and fd not in kept:
            with contextlib.suppress(OSError):  # of the listing itself
                os.close(fd)
