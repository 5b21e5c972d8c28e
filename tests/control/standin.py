"""A minato whose Server is a stand-in that answers by itself: the processes are real, the proxy is not there.

Run as ``python -m tests.control.standin CONFIG [WORKERS [PID_FILE]]``. Files beside the config steer it:
``boot-fails`` and ``boot-hangs`` make new workers do that. With ``limits: {connections: 666}`` in the config they crash
when they have served for a moment.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from minato.caching.purge import PurgeRequest
from minato.config import Config, ListenAddress, load_config
from minato.control.boards import Boards
from minato.control.health import HealthChecker
from minato.control.master import Master
from minato.control.takeover import Predecessor
from minato.errors import BootError
from minato.net.bound import BoundListener
from minato.net.loop import EXCLUSIVE, READ, Loop
from minato.net.resolve import ResolvedAddress
from minato.shared.board import Board
from minato.telemetry.access_log import AccessLog
from minato.telemetry.log import setup_logging

SLOW_S = 1.0
CRASHING_CONNECTIONS = 666
LIFE_S = 0.05


def crash() -> None:
    raise SystemExit("told to crash")  # the loop would catch less


class StandInServer:
    """Answers every request with who it is: slot, pid, generation, upstream health."""

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
        steering = Path(config.path).parent
        if (steering / "boot-fails").exists():
            raise BootError("told to fail")
        while (steering / "boot-hangs").exists():
            time.sleep(0.02)
        self._loop = loop
        self._board = board
        self._row = board.row(slot)
        self._own = list(own)
        self._borrowed: list[BoundListener] = []
        self._connections: set[socket.socket] = set()
        self._is_draining = False
        self._on_drained: Callable[[], None] = lambda: None
        if config.limits.connections == CRASHING_CONNECTIONS:
            loop.timer(crash).set(LIFE_S)

    def start(self) -> None:
        for listener in self._own:
            self._listen(listener, READ)

    def adopt(self, orphans: Sequence[BoundListener]) -> None:
        for listener in orphans:
            self._borrowed.append(listener)
            self._listen(listener, READ & 1 | EXCLUSIVE)

    def release(self, orphans: Sequence[BoundListener]) -> None:
        for listener in orphans:
            self._borrowed.remove(listener)
            self._loop.remove(listener.sock.fileno())
            listener.sock.close()

    def close_idle(self) -> None:
        """It keeps no idle connections."""

    def shed(self) -> None:
        os.write(2, b"standin: shed\n")

    def linger(self, addresses: Collection[ListenAddress], on_lingered: Callable[[], None]) -> None:
        self._loop.call_soon(on_lingered)

    def drain(self, deadline_s: float, on_drained: Callable[[], None], *, sweep: bool = False) -> None:
        self._is_draining = True
        self._on_drained = on_drained
        for listener in [*self._own, *self._borrowed]:
            self._accept(listener)
            self._loop.remove(listener.sock.fileno())
            listener.sock.close()
        self._note_end()

    def stop(self) -> None:
        for sock in self._connections:
            sock.close()

    def purge(self, requests: Sequence[PurgeRequest]) -> int:
        """It stores nothing, but says what it was asked."""
        for request in requests:
            log = f"standin: purge {request.kind.value} {request.value.decode()}{' soft' if request.soft else ''}\n"
            os.write(2, log.encode())
        return len(requests)

    def change_addresses(self, key: str, places: Sequence[tuple[str, int]]) -> None:
        """It has no upstreams, but says what it was told."""
        told = " ".join(f"{address}={column}" for address, column in places)
        os.write(2, f"standin: {os.getpid()} {key} {told}\n".encode())

    def reopen_logs(self) -> None:
        os.write(2, b"standin: reopened logs\n")

    def _listen(self, listener: BoundListener, events: int) -> None:
        self._loop.add(listener.sock.fileno(), events, lambda mask: self._accept(listener))

    def _accept(self, listener: BoundListener) -> None:
        while True:
            try:
                sock, _ = listener.sock.accept()
            except OSError:  # nobody waits; or another worker, whose master is gone as well, has shut the socket down
                return
            sock.setblocking(False)
            self._connections.add(sock)
            self._loop.add(sock.fileno(), READ, lambda mask, sock=sock: self._read(sock))

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(65_536)
        except OSError:
            data = b""
        if data.startswith(b"GET /hang"):
            while True:
                time.sleep(1)
        if data.startswith(b"GET /crash"):
            crash()
        if data.startswith(b"GET /slow"):
            self._loop.modify(sock.fileno(), 0)
            self._loop.timer(lambda: self._answer(sock)).set(SLOW_S)
        elif data:
            self._answer(sock)
        else:
            self._close(sock)

    def _answer(self, sock: socket.socket) -> None:
        generation, healthy = self._row.generation, sum(self._board.health)
        body = f"pid={os.getpid()} gen={generation} healthy={healthy}".encode()
        try:
            sock.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        finally:
            self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        self._loop.remove(sock.fileno())
        sock.close()
        self._connections.discard(sock)
        self._note_end()

    def _note_end(self) -> None:
        if self._is_draining and not self._connections:
            self._on_drained()


def main() -> int:
    setup_logging("debug")
    path = sys.argv[1]
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else None
    pid_file = sys.argv[3] if len(sys.argv) > 3 else None
    config = load_config(path)

    def make_checker(boards: Boards) -> HealthChecker:
        return HealthChecker(config.health, {}, {}, publish=boards.publish, outcomes=boards.outcomes)

    try:
        return Master(
            config,
            load=lambda: load_config(path),
            server_factory=StandInServer,
            checker_factory=make_checker,
            workers=workers,
            pid_file=pid_file,
            predecessor=Predecessor.from_environment(os.environ),
        ).run()
    except BootError as error:
        os.write(2, f"minato: {error}\n".encode())
        return 1


if __name__ == "__main__":
    sys.exit(main())
