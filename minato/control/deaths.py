"""How a worker ended: from its wait status and the kernel's count of processes that it killed for want of memory."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

_VMSTAT = Path("/proc/vmstat")
# What the kernel sends a process that went wrong by itself. Whatever else kills a worker is somebody's wish.
_FAULTS = frozenset(
    [
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    ]
)


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended.

    Attributes:
        how: in words, after its name.
        is_clean: whether it ended by itself with status 0.
        is_crash: whether it ended by its own fault.
    """

    how: str
    is_clean: bool = False
    is_crash: bool = False


class Coroner:
    """Tells how workers ended.

    SIGKILL may be a person or the kernel that ran out of memory; the kernel's count tells which. It counts for the
    whole machine, so two deaths at a time may be mixed up; then a kill is taken for a crash too many, or too few.
    """

    def __init__(self, vmstat: Path = _VMSTAT) -> None:
        self._vmstat = vmstat
        self._oom_kills = self._count_oom_kills()

    def examine(self, exit_code: int) -> Death:
        """Return how a worker ended.

        Args:
            exit_code: the exit status, or minus the number of the signal.
        """
        how = describe_exit(exit_code)
        if exit_code >= 0:
            return Death(how, is_clean=exit_code == 0, is_crash=exit_code != 0)
        if -exit_code == signal.SIGKILL and self._ran_out_of_memory():
            return Death(f"{how}: the kernel ran out of memory", is_crash=True)
        return Death(how, is_crash=-exit_code in _FAULTS)

    def _ran_out_of_memory(self) -> bool:
        before, self._oom_kills = self._oom_kills, self._count_oom_kills()
        return self._oom_kills > before

    def _count_oom_kills(self) -> int:
        try:
            for line in self._vmstat.read_text("ascii").splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
        except (OSError, ValueError):
            pass  # kernels before 4.13 do not count: then SIGKILL is a person
        return 0


def describe_exit(exit_code: int) -> str:
    """Say how a process ended: by its exit status, or minus the number of the signal."""
    return f"was killed by {_signal_name(-exit_code)}" if exit_code < 0 else f"ended with status {exit_code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
