"""slowhttptest against an instance, and what another client sees of it meanwhile."""

from __future__ import annotations

import csv
import gc
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .client import Client
from .load import find_tool
from .wire import request_bytes

# Heads that do not end; bodies that do not; answers that are hardly read, several requests a connection; many ranges.
MODES: Final = {
    "slow head": ["-H", "-i", "1", "-x", "24"],
    "slow body": ["-B", "-i", "1", "-s", "8192", "-x", "10"],
    "slow read": ["-X", "-w", "256", "-y", "512", "-n", "1", "-z", "32", "-k", "3"],
    "ranges": ["-R", "-a", "5", "-b", "3000"],
}


@dataclass(frozen=True)
class Outcome:
    """What slowhttptest saw.

    Attributes:
        most_connected: the most of its connections at a time.
        most_over: how many had been closed by the server at the end.
        was_available: whether its own probes were always answered.
        text: what it printed.
    """

    most_connected: int
    most_over: int
    was_available: bool
    text: str


class SlowAttack:
    """One run in the background, for some seconds or until the server has closed all its connections."""

    def __init__(self, port: int, mode: str, directory: Path, *, connections: int, seconds: int) -> None:
        self._stem = directory / mode.replace(" ", "-")
        self._seconds = seconds
        path = "sink" if mode == "slow body" else "large"
        command = [find_tool("slowhttptest"), *MODES[mode], "-u", f"http://127.0.0.1:{port}/{path}", "-p", "3"]
        command += [
            "-c",
            str(connections),
            "-r",
            str(connections * 2 // 5),
            "-l",
            str(seconds),
            "-g",
            "-o",
            str(self._stem),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        if self.is_running():
            self._process.kill()
        self._process.wait(5)

    def outcome(self) -> Outcome:
        """Wait for the end, and read its report."""
        text = self._process.communicate(timeout=self._seconds + 20)[0].decode("utf-8", "replace")
        with self._stem.with_suffix(".csv").open() as report:
            rows = list(csv.DictReader(report))
        assert rows, text
        return Outcome(
            most_connected=max(int(row["Connected"]) for row in rows),
            most_over=max(int(row["Closed"]) for row in rows),
            was_available=all(int(row["Service Available"]) > 0 for row in rows),
            text=f"{text}\n{rows}",
        )


def measure_p99_s(
    port: int, pids: Sequence[int], go_on: Callable[[float], bool], pause_s: float = 0.004
) -> tuple[float, bool]:
    """Ask again and again on one connection, a new one now and then; return the 99th percentile of the seconds it took.

    Less the time in which this thread or one of the processes was ready to run and had to wait for a processor. What
    else runs on the machine, slowhttptest itself first of all, would be most of the figure, and other from run to run.
    No garbage is collected meanwhile: in a process that has run some thousand tests, that takes a tenth of a second.

    Args:
        port: of minato.
        pids: of the processes that serve these requests.
        go_on: is given the seconds so far.
        pause_s: between two requests.

    Returns:
        The seconds, and whether the kernel tells of such waiting; if not, it is contained in them.
    """
    queues = [Path("/proc/thread-self/schedstat"), *(Path(f"/proc/{pid}/schedstat") for pid in pids)]
    tells = all(queue.exists() for queue in queues)
    taken: list[float] = []
    start_s = time.monotonic()
    client = Client(port)
    gc.disable()
    try:
        while go_on(time.monotonic() - start_s):
            is_last = len(taken) % 20 == 19
            if is_last:
                client.close()
            waited_s = _waited_s(queues) if tells else 0.0
            began_s = time.monotonic()
            if is_last:
                client = Client(port)
            client.send(request_bytes())
            assert client.receive().status == 200
            took_s = time.monotonic() - began_s
            taken.append(took_s - (_waited_s(queues) - waited_s) if tells else took_s)
            time.sleep(pause_s)
    finally:
        gc.enable()
        client.close()
    taken.sort()
    return taken[len(taken) * 99 // 100], tells


def _waited_s(queues: Sequence[Path]) -> float:
    """Return how long the tasks have waited for a processor so far: the second number, in nanoseconds."""
    return sum(int(queue.read_text().split()[1]) for queue in queues) / 1e9
