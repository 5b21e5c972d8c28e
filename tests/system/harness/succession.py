"""kill -9 of a master and the next one in its place, under clients who would notice anything."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

from .client import fetch
from .proxy import Minato, segments_of
from .waiting import wait_until


class Prober(threading.Thread):
    """Opens a connection for each request, one after the other, and notes whatever is not the right answer.

    Attributes:
        failures: by when they happened, in monotonic seconds.
    """

    def __init__(self, port: int, origins: Sequence[bytes] = (b"a",)) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._origins = origins
        self._is_over = threading.Event()
        self.answers = 0
        self.failures: list[tuple[float, str]] = []

    def __enter__(self) -> Prober:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self.join(20)

    def run(self) -> None:
        while not self._is_over.is_set():
            begun_s = time.monotonic()
            try:
                response = fetch(self._port)
                assert response.status == 200 and response.get(b"x-origin") in self._origins, response
                self.answers += 1
            except (OSError, AssertionError) as error:
                self.failures.append((begun_s, f"{type(error).__name__} {error}"))
            time.sleep(0.002)

    def wait_more(self, count: int = 30) -> None:
        """Wait until so many more requests were answered."""
        before = self.answers
        wait_until(lambda: self.answers >= before + count, "further answers")

    def check(self) -> None:
        assert self.failures == [], self.failures
        assert self.answers >= 20


def kill_master(instance: Minato) -> None:
    """kill -9 of the master in office."""
    instance.remember_children()
    if instance.pid == instance.process.pid:
        instance.process.kill()
        instance.process.wait(5)
    else:
        os.kill(instance.pid, signal.SIGKILL)
        wait_until(lambda: instance.pid not in [left.pid for left in instance.survivors()], "its end")


def start_next(instances: Any, instance: Minato, *, workers: int = 2, wait_ready: bool = True) -> Minato:
    """Start another master with the config that the killed one has by now."""
    number = 2
    while (directory := instance.directory.with_name(f"{instance.directory.name}-{number}")).exists():
        number += 1
    directory.mkdir()
    following: Minato = instances.adopt(Minato(directory, instance.config, workers=workers))
    return following.wait_ready() if wait_ready else following


def wait_gone(instance: Minato, timeout_s: float = 15.0) -> None:
    """Wait until nothing is left of a killed master."""
    wait_until(lambda: instance.survivors() == [], "the workers of the killed master to end", timeout_s)
    assert [name for pid in instance.masters for name in segments_of(pid)] == []


def open_doors(*instances: Minato) -> list[str]:
    """Return the names at which workers of these masters wait for the next one, or would."""
    prefixes = tuple(f"@minato-orphans-{os.geteuid()}-{pid}-" for instance in instances for pid in instance.masters)
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as lines:
        return [name for line in lines if (name := line.split()[-1]).startswith(prefixes)]
