"""Runs bin/minato as a user does, reads its stderr, knows its workers, and leaves nothing of it behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from .client import Client
from .waiting import wait_until

REPO = Path(__file__).resolve().parents[3]
BIN = REPO / "bin" / "minato"
_SHM = Path("/dev/shm")
START_TIMEOUT_S = 20.0


def run_minato(*arguments: str, cwd: Path | None = None, timeout_s: float = 20.0) -> subprocess.CompletedProcess[str]:
    """Run a call of minato that ends by itself."""
    command = [sys.executable, str(BIN), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)


def segments_of(pid: int) -> list[str]:
    """The shared-memory segments that a master of that pid made."""
    return sorted(path.name for path in _SHM.glob(f"minato-{pid}-*"))


class Minato:
    """One running instance.

    Attributes:
        port: the listen port of the first service.
        masters: pids of all masters so far; the last one is in office.
        lines: every line of stderr so far.
    """

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any] | str,
        *,
        workers: int | None = 1,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        command: str = "run",
        program: Sequence[str] = (str(BIN),),
        relative: bool = False,
    ) -> None:
        self.directory = directory
        self.config_path = directory / "config.yaml"
        self.write_config(config)
        self.lines: list[str] = []
        self.expects_traceback = False
        self._change = threading.Condition()
        self._ended = False
        self._known: dict[int, float] = {}
        options = ["--config", "config.yaml" if relative else str(self.config_path)] + (
            ["--workers", str(workers)] if workers else []
        )
        self.stdout_path = directory / "stdout"
        with self.stdout_path.open("ab") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, *program, *([command] if command else []), *options, *arguments],
                cwd=directory,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        self.masters = [self.process.pid]
        self._reader = threading.Thread(target=self._read_stderr, daemon=True)
        self._reader.start()

    # -- config

    def write_config(self, config: Mapping[str, Any] | str) -> None:
        """Write the config file anew (whole, by a rename)."""
        text = config if isinstance(config, str) else yaml.safe_dump(dict(config), sort_keys=False)
        temporary = self.config_path.with_suffix(".new")
        temporary.write_text(text)
        temporary.rename(self.config_path)
        if not isinstance(config, str):
            self.config = dict(config)
            self.port = int(config["services"][0]["listen_port"])

    # -- stderr

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            with self._change:
                self.lines.append(raw.decode("utf-8", "replace").rstrip("\n"))
                self._change.notify_all()
        with self._change:
            self._ended = True
            self._change.notify_all()

    def find_log(self, pattern: str, since: int = 0) -> list[str]:
        """The lines so far that match, from line number ``since`` on."""
        return [line for line in self.lines[since:] if re.search(pattern, line)]

    def wait_for_log(self, pattern: str, timeout_s: float = 10.0, since: int = 0) -> str:
        """Wait for a line that matches and return it."""
        with self._change:
            self._change.wait_for(lambda: self._ended or self.find_log(pattern, since), timeout_s)
        found = self.find_log(pattern, since)
        assert found, f"no log line /{pattern}/ within {timeout_s} s in:\n{self.stderr()}"
        return found[0]

    def stderr(self) -> str:
        return "\n".join(self.lines)

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> Minato:
        self.wait_for_log(r"^minato: ready", timeout_s)
        self.remember_children()
        return self

    # -- processes

    @property
    def pid(self) -> int:
        return self.masters[-1]

    def remember_children(self) -> list[psutil.Process]:
        """All children at this moment; they are checked to be gone at the end."""
        try:
            children = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._known.setdefault(child.pid, child.create_time())
        return children

    def workers(self, generation: int | None = None) -> list[psutil.Process]:
        """The worker processes by their titles, ordered by slot; of one generation, or of all."""
        found = []
        for child in self.remember_children():
            title = title_of(child)
            match = re.match(r"minato: worker (\d+) gen (\d+)", title)
            if match and (generation is None or int(match[2]) == generation):
                found.append((int(match[1]), int(match[2]), child))
        return [child for _, _, child in sorted(found, key=lambda entry: entry[:2])]

    def worker_pids(self) -> list[int]:
        return [worker.pid for worker in self.workers()]

    def generations(self) -> set[int]:
        """The generations that have a worker."""
        matches = [re.search(r" gen (\d+)", title_of(worker)) for worker in self.workers()]
        return {int(match[1]) for match in matches if match}

    def signal(self, number: signal.Signals) -> None:
        self.remember_children()
        if self.pid == self.process.pid:
            self.process.send_signal(number)
        else:
            os.kill(self.pid, number)

    def upgrade(self, timeout_s: float = 20.0) -> int:
        """USR2, and wait until the new master has taken over; returns its pid, which is ``pid`` from then on."""
        since = len(self.lines)
        self.signal(signal.SIGUSR2)
        return self.note_upgraded(timeout_s, since)

    def note_upgraded(self, timeout_s: float = 20.0, since: int = 0) -> int:
        """Wait until a new master has said that it is ready, from line number ``since`` on; returns its pid."""
        return self.note_master(self.wait_for_log(rf"^minato: ready pid=(?!{self.pid}\b)", timeout_s, since))

    def note_master(self, ready_line: str) -> int:
        """A new master has taken over and says so: ``pid`` is its from then on."""
        self.remember_children()  # the new master is the old one's child for as long as that lives
        self.masters.append(int(re.findall(r"pid=(\d+)", ready_line)[0]))
        self.remember_children()
        with contextlib.suppress(psutil.NoSuchProcess):
            self._known.setdefault(self.pid, psutil.Process(self.pid).create_time())
        return self.pid

    def reload(self, timeout_s: float = 20.0, wait_old_gone: bool = False) -> int:
        """HUP, and wait until the new generation serves; returns its number."""
        before = max(self.generations())
        since = len(self.lines)
        self.signal(signal.SIGHUP)
        self.wait_for_log(RELOADED, timeout_s, since)
        new = wait_until(lambda: max(self.generations(), default=0) > before and max(self.generations()), "a reload")
        if wait_old_gone:
            wait_until(lambda: self.generations() == {new}, "the old generation to end", timeout_s)
        return int(new)

    def wait_exit(self, timeout_s: float = 15.0) -> int:
        """Wait for the master's end and return its exit status (negative: the signal)."""
        status = self.process.wait(timeout_s)
        if self.pid != self.process.pid:
            wait_until(
                lambda: self.pid not in [left.pid for left in self.survivors()], "the last master's end", timeout_s
            )
        self._reader.join(1)  # workers of a killed master may hold stderr longer than that
        return status

    # -- clients

    def client(self, **options: Any) -> Client:
        return Client(options.pop("port", self.port), **options)

    # -- the end

    def stop(self) -> None:
        """End everything that was started here: fast stop first, by force if that fails. Never raises."""
        self.remember_children()
        self.process.poll()  # collected or not: its pid may be another's once it is
        if self.process.returncode is None or len(self.masters) > 1:
            for pid in self._living_masters():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(8)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
            self.lines.append("harness: the master did not end within 8 s of SIGINT and was killed")
        deadline_s = time.monotonic() + 3
        while (left := self.survivors()) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        for process in left:
            self.lines.append(f"harness: child {process.pid} outlived its master")
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._reader.join(5)

    def _living_masters(self) -> list[int]:
        former = [left.pid for left in self.survivors() if left.pid in self.masters]
        return former if self.process.returncode is not None else list({self.process.pid, *former})

    def survivors(self) -> list[psutil.Process]:
        """Children that are still there (zombies too), by pid and start time."""
        alive = []
        for pid, created in self._known.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                # A master that was handed to init is init's to collect, and some are slow about it.
                is_inits = process.status() == psutil.STATUS_ZOMBIE and process.ppid() == 1
                if process.create_time() == created and not is_inits:
                    alive.append(process)
        return alive

    def complaints(self) -> list[str]:
        """What is wrong after the end: processes or segments left, tracebacks, a master that had to be killed."""
        found = [line for line in self.lines if line.startswith("harness: ")]
        found += [f"segment left in /dev/shm: {name}" for pid in self.masters for name in segments_of(pid)]
        if not self.expects_traceback and any("Traceback (most recent call last)" in line for line in self.lines):
            found.append(f"a traceback in the log:\n{self.stderr()}")
        return found


RELOADED = r"generation \d+ serves"


def title_of(process: psutil.Process) -> str:
    """A process's title as ``ps`` shows it; empty where it is gone."""
    try:
        return " ".join(process.cmdline()).strip()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def fd_count(process: psutil.Process) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def rss_bytes(process: psutil.Process) -> int:
    return int(process.memory_info().rss)
