"""The origin and the peers: how each is started, in a directory and on a port of its own, and how it is ended."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import configs
from configs import Place

_ROOT = Path(__file__).resolve().parent.parent
_SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_START_DEADLINE_S = 60.0
_STOP_DEADLINE_S = 5.0
# Below the ports that the kernel gives to outgoing connections: none of the peers' own can take one.
_PORTS = range(12_000, 32_000)

Command = list[str]


class PeerError(Exception):
    """A peer does not start; says why, without paths."""


class OriginError(Exception):
    """The origin is gone: nothing can be measured any more."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One that is measured.

    Attributes:
        name: on the command line and in the report.
        program: what runs it; looked for on PATH.
        commands: writes the config into the place and returns the command lines: the proxy, then its helpers.
        version: the command line that prints the version.
        has_cache: whether it does the cached works.
        stop_signal: what stops it at once.
    """

    name: str
    program: str
    commands: Callable[[Place], list[Command]]
    version: tuple[str, ...]
    has_cache: bool = True
    stop_signal: signal.Signals = signal.SIGTERM


def find_program(name: str) -> str | None:
    return sys.executable if name == "minato" else shutil.which(name, path=_SEARCH_PATH)


def _program(name: str) -> str:
    program = find_program(name)
    if program is None:
        raise PeerError(f"{name} is not installed")
    return program


def _nginx_command(place: Place, config: str) -> Command:
    path = place.write("nginx.conf", config)
    return [_program("nginx"), "-p", str(place.directory), "-c", str(path), "-e", "stderr"]


def _origin(place: Place) -> list[Command]:
    for name, size in (("1k", 1_024), ("10k", 10_240), ("1m", 1_048_576)):
        place.write(name, "minato benchmark\n" * (size // 17) + "." * (size % 17))
    return [_nginx_command(place, configs.origin(place))]


def _nginx(place: Place) -> list[Command]:
    return [_nginx_command(place, configs.nginx(place))]


def _haproxy(place: Place) -> list[Command]:
    return [[_program("haproxy"), "-db", "-q", "-f", str(place.write("haproxy.cfg", configs.haproxy(place)))]]


def _varnish(place: Place) -> list[Command]:
    policy = place.write("policy.vcl", configs.varnish(place))
    work = str(place.directory / "work")
    commands = [[_program("varnishd"), "-F", "-j", "none", "-n", work, "-f", str(policy)]]
    commands[0] += configs.varnish_options(place)
    if place.setup.access_log:  # varnishd itself writes none
        commands.append([_program("varnishncsa"), "-n", work, "-w", str(place.directory / "access.log")])
    return commands


def _caddy(place: Place) -> list[Command]:
    path = place.write("Caddyfile", configs.caddy(place))
    return [[_program("caddy"), "run", "--adapter", "caddyfile", "--config", str(path)]]


def _minato(place: Place, *, express: bool = True) -> list[Command]:
    path = place.write("minato.yaml", configs.minato(place, express=express))
    return [[sys.executable, str(_ROOT / "bin" / "minato"), "run", "--config", str(path)]]


def _minato_h11(place: Place) -> list[Command]:
    return _minato(place, express=False)


_MINATO_VERSION = (str(_ROOT / "bin" / "minato"), "--version")
ORIGIN = Peer("origin", "nginx", _origin, ("-v",))
PEERS = (
    Peer("minato", "minato", _minato, _MINATO_VERSION, stop_signal=signal.SIGINT),
    Peer("minato-h11", "minato", _minato_h11, _MINATO_VERSION, stop_signal=signal.SIGINT),
    Peer("nginx", "nginx", _nginx, ("-v",)),
    Peer("haproxy", "haproxy", _haproxy, ("-v",)),
    Peer("varnish", "varnishd", _varnish, ("-V",)),
    Peer("caddy", "caddy", _caddy, ("version",), has_cache=False),
)
# Their names in the report.
LABELS = {
    "minato": "minato",
    "minato-h11": "minato, express: false",
    "nginx": "nginx",
    "haproxy": "HAProxy",
    "varnish": "Varnish",
    "caddy": "Caddy",
}


def free_port() -> int:
    """A port nobody listens on, and no connection of the recent past lingers on."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise PeerError("no free port")


class Instance:
    """A running peer with one setup. Its processes lead sessions of their own: Ctrl-C reaches them through us."""

    def __init__(self, peer: Peer, place: Place) -> None:
        self.peer = peer
        self.port = place.port
        self._directory = place.directory
        self._setup = place.setup
        self._processes: list[subprocess.Popen[bytes]] = []
        first, *helpers = peer.commands(place)
        try:
            self._spawn(first)
            self._await_answer()
            for command in helpers:
                self._spawn(command)
        except BaseException:
            self.stop()
            raise

    @property
    def pids(self) -> list[int]:
        """The processes that were started; their descendants are not among them."""
        return [process.pid for process in self._processes]

    def is_alive(self) -> bool:
        return all(process.poll() is None for process in self._processes)

    def _spawn(self, command: Command) -> None:
        with open(self._directory / "stdout", "ab") as out, open(self._directory / "stderr", "ab") as err:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    cwd=self._directory,
                    env=self._environment(),
                    start_new_session=True,
                )
            except OSError as error:
                raise PeerError(f"{self.peer.name} cannot be run: {error.strerror}") from error
        self._processes.append(process)

    def _environment(self) -> dict[str, str]:
        """Caddy keeps its state below HOME, and takes its number of threads from Go's variable."""
        home = str(self._directory)
        places = {"HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home}
        return os.environ | places | {"GOMAXPROCS": str(self._setup.workers)}

    def _await_answer(self) -> None:
        deadline = time.monotonic() + _START_DEADLINE_S
        while not answers(self.port):
            if not self.is_alive():
                raise PeerError(f"{self.peer.name} ends at its start:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise PeerError(f"{self.peer.name} does not answer:\n{self.last_words()}")
            time.sleep(0.05)

    def last_words(self) -> str:
        text = (self._directory / "stderr").read_text(errors="replace")
        return "\n".join(text.splitlines()[-5:])

    def stop(self) -> None:
        """Ends the processes; those that do not go in time are killed with their session."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(self.peer.stop_signal)
        deadline = time.monotonic() + _STOP_DEADLINE_S
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def answers(port: int) -> bool:
    """Whether the proxy on the port brings the origin's answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/echo", headers={"Connection": "close"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
