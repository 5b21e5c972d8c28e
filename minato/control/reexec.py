"""How this process was started, and starting the same once more beside it: new code, and what Python is there now."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from minato.control.link import Link, LinkClosedError
from minato.control.signals import MASTER_SIGNALS, hold_signals

HANDOVER_VARIABLE = "MINATO_HANDOVER"
EXIT_CANNOT_EXECUTE = 127

# These wait until the new master can take them: their default would end it.
_KEPT_WAITING = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What started this process.

    Attributes:
        executable: path of the Python.
        arguments: all of them, those of Python itself (``-m``, ``-X``) included.
        directory: the working directory, by the name that the shell had for it, where that is the same directory: a
            name that goes through a symbolic link leads to what the link points to by then.
    """

    executable: str
    arguments: tuple[str, ...]
    directory: str

    @classmethod
    def of_this_process(cls) -> CommandLine:
        return cls(sys.executable, tuple(sys.orig_argv[1:]), _logical_directory(os.environ))

    def start(self, link: Link, fork_lock: AbstractContextManager[object]) -> int:
        """Start it once more, with the other end of a link, which it finds through HANDOVER_VARIABLE; return its pid.

        Where it cannot be executed, the link says so (``cannot``), and it ends with EXIT_CANNOT_EXECUTE.

        Raises:
            OSError: no process to be had.
        """
        with hold_signals(MASTER_SIGNALS), fork_lock:
            pid = os.fork()
            if pid == 0:
                self._become_it(link)
        return pid

    def _become_it(self, link: Link) -> None:
        """In the child. Never returns."""
        try:
            for number in MASTER_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            signal.pthread_sigmask(signal.SIG_SETMASK, _KEPT_WAITING)
            os.chdir(self.directory)
            os.set_inheritable(link.fileno(), True)
            environment = {**os.environ, HANDOVER_VARIABLE: str(link.fileno())}
            # argv[0] is where Python looks for its own files first.
            os.execve(self.executable, [self.executable, *self.arguments], environment)
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            with contextlib.suppress(LinkClosedError):
                link.send({"cannot": what})
        finally:
            os._exit(EXIT_CANNOT_EXECUTE)


def _logical_directory(environment: Mapping[str, str]) -> str:
    physical = os.getcwd()
    logical = environment.get("PWD", "")
    try:
        is_same = os.path.isabs(logical) and os.path.samefile(logical, physical)
    except OSError:
        is_same = False
    return logical if is_same else physical
