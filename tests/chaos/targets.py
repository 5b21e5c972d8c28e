"""What is put under load: minato, nginx or HAProxy, with configs for the same work, reloaded as their manuals say."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.peer_configs import haproxy_config, nginx_config
from tests.chaos.sockets import accepted_from
from tests.system.harness import Minato, free_port, make_config, service
from tests.system.harness.proxy import segments_of

SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_START_S, _STOP_S = 20.0, 10.0


class Target(ABC):
    """One proxy before two origins.

    Attributes:
        port: where it serves; ``spare_port`` is for scenarios to add and remove.
    """

    name: str

    def __init__(self, directory: Path, origins: list[str]) -> None:
        self.directory = directory
        self.origins = origins
        self.port, self.spare_port = free_port(), free_port()

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    def reload(self) -> None:
        """Ask for a reload, and do not wait for it."""

    @abstractmethod
    async def stop(self) -> list[str]:
        """End it and return what is wrong about how it ended."""

    @abstractmethod
    def log(self) -> list[str]:
        """Return what it wrote to stderr so far."""

    @abstractmethod
    def break_address(self, taken_port: int) -> None:
        """Write a config with an address that somebody else listens on, too."""


class MinatoTarget(Target):
    """minato, started as a user does."""

    name = "minato"
    instance: Minato

    def __init__(self, directory: Path, origins: list[str], *, workers: int = 2, **sections: Any) -> None:
        super().__init__(directory, origins)
        self.workers = workers
        self.sections = sections
        self.pid_file = directory / "minato.pid"
        self._retired: list[Minato] = []

    def config(
        self, *, workers: int | None = None, spare: bool = False, extra_port: int = 0, **sections: Any
    ) -> dict[str, Any]:
        """The config, with the spare port, a further port or other sections if wanted."""
        keys: dict[str, Any] = {"balancer": "RoundRobin", "retries": 1}
        services = [service(self.port, self.origins, name="chaos", **keys)]
        for number, port in enumerate([self.spare_port] * spare + [extra_port] * bool(extra_port)):
            services.append(service(port, self.origins[::-1], name=f"more{number}", **keys))
        timeouts = {"connect": 3, "response": 2, "read": 10, "drain": 20, "heartbeat": 10}
        given = {**self.sections, **sections}
        return make_config(
            services,
            workers=workers or self.workers,
            cache={"enabled": True, "capacity": 1_000, **given.pop("cache", {})},
            health={"interval": 1, "tcp_timeout": 2, "http_timeout": 3},
            timeouts=timeouts | given.pop("timeouts", {}),
            # Up to half of all requests fail at their first upstream here, on purpose: each is to be tried once more.
            retry_budget={"share": 1.0},
            # An origin that was ejected has to be back before it is the other one's turn to fail.
            passive_health={"eject": 1, "max_eject": 1},
            **given,
        )

    async def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        await self._launch()

    async def _launch(self, lives_s: float | None = None) -> None:
        options = ("--pid-file", str(self.pid_file))
        self.instance = Minato(self.directory, self.config(), workers=None, arguments=options)
        if lives_s is None:
            await asyncio.to_thread(self.instance.wait_ready)
        else:
            await asyncio.sleep(lives_s)

    async def kill_and_start(self, pause_s: float = 0.0, lives_s: float | None = None) -> None:
        """kill -9 of the master; another one is started, on the same ports.

        Args:
            pause_s: how long after that.
            lives_s: it lives for so long, whatever it has come to by then; None: it is ready when this returns.
        """
        self.instance.remember_children()
        self.instance.process.kill()
        self.instance.process.wait(_STOP_S)
        self._retired.append(self.instance)
        await asyncio.sleep(pause_s)
        await self._launch(lives_s)

    def write(self, config: dict[str, Any] | str) -> None:
        self.instance.write_config(config)

    @property
    def pid(self) -> int:
        """The master's; another one after an upgrade."""
        return int(self.pid_file.read_text())

    def reload(self) -> None:
        self.send(signal.SIGHUP)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def has_ended(self, pid: int) -> bool:
        """Whether a master is gone; nobody but us collects the first one."""
        self.instance.process.poll()
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    def workers_left(self) -> int:
        """Return how many workers of killed masters still drain."""
        return sum(len(old.survivors()) for old in self._retired)

    def break_address(self, taken_port: int) -> None:
        self.write(self.config(extra_port=taken_port))

    async def wait_for_log(self, pattern: str, since: int = 0, timeout_s: float = 20.0) -> str:
        return await asyncio.to_thread(self.instance.wait_for_log, pattern, timeout_s, since)

    async def stop(self) -> list[str]:
        if not hasattr(self, "instance"):
            return []
        self.instance.remember_children()
        found = await self._stop_successor()
        for each in (self.instance, *self._retired):
            await asyncio.to_thread(each.stop)
            found += each.complaints()
        return found

    async def _stop_successor(self) -> list[str]:
        """End the master that an upgrade put in the place of the one we started."""
        try:
            pid = self.pid
        except (OSError, ValueError):
            return []
        if pid == self.instance.pid or self.has_ended(pid):
            return []
        master = psutil.Process(pid)
        workers = master.children(recursive=True)
        master.send_signal(signal.SIGINT)
        try:
            await asyncio.to_thread(master.wait, _STOP_S)
        except psutil.TimeoutExpired:
            master.kill()
        left = psutil.wait_procs(workers, timeout=_STOP_S)[1]
        found = [f"segment left in /dev/shm: {name}" for name in segments_of(pid)]
        return found + [f"worker {process.pid} outlived the master that an upgrade brought" for process in left]

    def log(self) -> list[str]:
        return self.instance.lines

    def held_ports(self, pid: int) -> frozenset[int]:
        """Return the clients' ports of the connections that a process, stopped by now, has accepted."""
        return accepted_from(pid, {self.port, self.spare_port})


class Peer(Target):
    """A program of somebody else's, run in the foreground."""

    config_name: str

    def __init__(self, directory: Path, origins: list[str]) -> None:
        super().__init__(directory, origins)
        self._stderr = directory / "stderr"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def config(self, extra_port: int = 0) -> str: ...

    async def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / self.config_name).write_text(self.config())
        with self._stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        async with asyncio.timeout(_START_S):
            while not await self._answers():
                assert self._process.poll() is None, "\n".join(self.log())
                await asyncio.sleep(0.05)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def reload(self) -> None:
        assert self._process is not None
        self._process.send_signal(self.reload_signal)

    reload_signal = signal.SIGHUP

    def break_address(self, taken_port: int) -> None:
        (self.directory / self.config_name).write_text(self.config(taken_port))

    async def stop(self) -> list[str]:
        process = self._process
        if process is None:
            return []
        try:
            children = psutil.Process(process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return [f"it ended by itself, with status {process.poll()}: " + " ".join(self.log()[-3:])]
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, _STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_S)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()  # psutil makes sure that it is still the same
        return []

    def log(self) -> list[str]:
        return self._stderr.read_text(errors="replace").splitlines() if self._stderr.exists() else []


class Nginx(Peer):
    name = "nginx"
    config_name = "nginx.conf"

    def command(self) -> list[str]:
        return [_find("nginx"), "-p", f"{self.directory}/", "-c", self.config_name, "-e", "stderr"]

    def config(self, extra_port: int = 0) -> str:
        return nginx_config(self.port, self.origins, extra_port)


class HAProxy(Peer):
    """In master-worker mode; listening sockets are handed from process to process, as its manual recommends."""

    name = "haproxy"
    config_name = "haproxy.cfg"
    reload_signal = signal.SIGUSR2
    idle_close_on_response = False

    def command(self) -> list[str]:
        return [_find("haproxy"), "-W", "-f", self.config_name]

    def config(self, extra_port: int = 0) -> str:
        return haproxy_config(self.port, self.origins, extra_port, self.idle_close_on_response)


class PatientHAProxy(HAProxy):
    name = "haproxy-idle"
    idle_close_on_response = True


TARGETS: dict[str, type[Target]] = {kind.name: kind for kind in (MinatoTarget, Nginx, HAProxy, PatientHAProxy)}


def is_installed(name: str) -> bool:
    return name == "minato" or shutil.which(name.partition("-")[0], path=SEARCH_PATH) is not None


def _find(program: str) -> str:
    found = shutil.which(program, path=SEARCH_PATH)
    assert found, f"{program} is not installed; `make peers` does that"
    return found
