"""What the master tells the system around it: pid file, service manager, limit of open files, the ready line."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

from minato.config.model import ListenAddress
from minato.errors import BootError
from minato.shared.board import remove_leftovers

log = logging.getLogger("minato.system")

# A hard limit of "unlimited" would make tools that close every possible descriptor take minutes.
MAX_OPEN_FILES = 1_048_576

_STDERR_FD = 2


class PidFile:
    """A file that holds the master's pid while it runs."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def write(self) -> None:
        """Write the file so that no reader ever sees half of it.

        Raises:
            BootError: it cannot be written.
        """
        scratch = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            scratch.write_text(f"{os.getpid()}\n", encoding="ascii")
            scratch.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                scratch.unlink()
            raise BootError(f"cannot write pid file {self._path}: {error.strerror}") from error

    def remove(self) -> None:
        """Remove the file, unless another process wrote its pid there since."""
        with contextlib.suppress(OSError):
            if self._path.read_text(encoding="ascii").strip() == str(os.getpid()):
                self._path.unlink()


def notify_service_manager(state: str) -> None:
    """Send a state such as ``READY=1`` to the service manager, where one asked for it (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    # "@" stands for the null byte that begins a name in Linux's abstract namespace.
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError as error:
            log.warning("cannot notify the service manager at %s: %s", path, error.strerror)


def remove_dead_boards() -> None:
    """Remove the shared memory of masters that were killed."""
    for name in remove_leftovers():
        log.info("removed %s, left behind by a master that was killed", name)


def raise_open_files_limit() -> None:
    """Raise the soft limit of open files to the hard one: a proxied connection takes two or more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            log.warning("cannot raise the limit of open files from %d to %d: %s", soft, wanted, error)


def say(text: str) -> None:
    """Write one line to stderr as it is, whatever the log level."""
    with contextlib.suppress(OSError):
        os.write(_STDERR_FD, f"{text}\n".encode())


def say_ready(workers: int, addresses: Iterable[ListenAddress]) -> None:
    """Write the one line that says that all workers serve, and tell the service manager."""
    say(f"minato: ready pid={os.getpid()} workers={workers} listening on {', '.join(map(str, addresses))}")
    notify_service_manager("READY=1")


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped, by SIGSTOP or a terminal."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False
