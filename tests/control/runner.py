"""Starts the stand-in minato in a process of its own, reads its log, and cleans up whatever a test left behind."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from tests.chaos.sockets import has_accepted

WAIT_S = 20.0
ROOT = Path(__file__).resolve().parents[2]


def write_config(path: Path, *ports: int, workers: int = 2, extra: str = "", upstream: int = 1) -> None:
    """Write a config with one service for each port; the upstream refuses connections."""
    lines = [f"workers: {workers}", extra, "services:"]
    for port in ports:
        lines.append(
            f'  - {{name: "s{port}", listen: "127.0.0.1", listen_port: {port}, hosts: ["http://*/"], '
            f'upstreams: [{{host: "http://127.0.0.1:{upstream}"}}]}}'
        )
    path.write_text("\n".join(lines) + "\n")


class Instance:
    """One running stand-in. ``log`` is what it wrote to stderr so far, line by line."""

    def __init__(self, config: Path, *args: str, env: dict[str, str] | None = None) -> None:
        self.config = config
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.control.standin", str(config), *args],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self.process.pid
        self.masters = [self.pid]
        self.log: list[str] = []
        self._changed = threading.Condition()
        self._seen: set[int] = set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            with self._changed:
                self.log.append(raw.decode().rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, pattern: str, count: int = 1) -> str:
        """Wait until so many lines of the log match, and return the last of them."""
        deadline_s = time.monotonic() + WAIT_S
        with self._changed:
            while True:
                found = [line for line in self.log if re.search(pattern, line)]
                if len(found) >= count:
                    return found[count - 1]
                left_s = deadline_s - time.monotonic()
                assert left_s > 0 and (self._reader.is_alive() or self._changed.wait(0)), self._complain(pattern)
                self._changed.wait(min(left_s, 0.5))

    def _complain(self, pattern: str) -> str:
        return f"no line matches {pattern!r} in:\n" + "\n".join(self.log)

    def wait_ready(self) -> None:
        self.wait_for("^minato: ready ")
        self.workers()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait_exit(self) -> int:
        status = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S if len(self.masters) == 1 else 0)  # a new master holds stderr, too
        return status

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes, sorted by title: slot, then generation."""
        children = psutil.Process(self.pid).children()
        self._seen.update(child.pid for child in children)
        return sorted((child for child in children if title(child)), key=title)

    def wait_workers(self, *titles: str) -> list[psutil.Process]:
        """Wait until the workers have exactly these titles, such as ``0 gen 1``."""
        deadline_s = time.monotonic() + WAIT_S
        while True:
            workers = self.workers()
            if [title(worker) for worker in workers] == list(titles):
                return workers
            assert time.monotonic() < deadline_s, (titles, [title(worker) for worker in workers], self.log)
            time.sleep(0.01)

    def wait_accepted(self, sock: socket.socket) -> None:
        """Wait until one of the workers has accepted this connection, or answered it: then it is in flight there."""
        deadline_s = time.monotonic() + WAIT_S
        while not any(has_accepted(worker.pid, sock) for worker in self.workers()):
            if select.select([sock], [], [], 0)[0]:
                return  # a look at the kernel's table takes its time where many connections are in it
            assert time.monotonic() < deadline_s, self.log
            time.sleep(0.01)

    def segments(self) -> list[str]:
        return [name for name in os.listdir("/dev/shm") if name.startswith(f"minato-{self.pid}-")]

    def upgraded(self) -> int:
        """Wait until a new master has taken over; ``pid`` is its from then on."""
        line = self.wait_for("^minato: ready ", count=len(self.masters) + 1)
        self.pid = int(re.findall(r"pid=(\d+)", line)[0])
        self.masters.append(self.pid)
        return self.pid

    def stop(self) -> None:
        """End everything, for a fixture: nothing may survive a failed test."""
        for pid in list(self.masters):
            with contextlib.suppress(psutil.Error):
                self._seen.update(child.pid for child in psutil.Process(pid).children(recursive=True))
        for pid in [*self.masters, *self._seen]:
            try:
                process = psutil.Process(pid)
                words = " ".join(process.cmdline())
                if pid == self.process.pid or any(word in words for word in ("minato: ", "standin")):
                    process.send_signal(signal.SIGCONT)
                    process.kill()
            except psutil.Error:
                continue
        self.process.wait()
        self._reader.join(WAIT_S)
        for name in os.listdir("/dev/shm"):
            if any(name.startswith(f"minato-{pid}-") for pid in [*self.masters, *self._seen]):
                os.unlink(f"/dev/shm/{name}")


def title(process: psutil.Process) -> str:
    """Return what follows ``minato: worker`` in a process's title; empty for other processes and ones that are gone."""
    try:
        found = re.match(r"minato: worker (\d+ gen \d+)", " ".join(process.cmdline()))
    except psutil.Error:
        return ""
    return found[1] if found else ""


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)


def wait_refused(port: int) -> None:
    """Wait until nobody listens: what a process had last is closed a moment after it was told."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        try:
            connect(port).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue
    raise AssertionError(f"somebody still listens on {port}")


def ask(port: int, path: str = "/") -> dict[str, str]:
    """Send a request and return what the stand-in says of itself: pid, gen, healthy."""
    with connect(port) as sock:
        return finish(sock, path)


def finish(sock: socket.socket, path: str = "/") -> dict[str, str]:
    """Send a request on an open connection and return the answer's pairs."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return read_answer(sock)


def read_answer(sock: socket.socket) -> dict[str, str]:
    data = b""
    while part := sock.recv(65_536):
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), data
    return dict(pair.split("=") for pair in body.decode().split())
