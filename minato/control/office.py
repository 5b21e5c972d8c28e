"""The master's office: pid file, service manager and ready line belong to one master at a time, also in an upgrade."""

from __future__ import annotations

import logging
import time

from minato.control.generation import Generation
from minato.control.system import PidFile, notify_service_manager, say_ready
from minato.errors import BootError

log = logging.getLogger("minato.master")


class Office:
    """What tells the system around it which process is minato.

    A master that takes the place of another one comes into office when the old one hands it on, and not before: until
    then the pid file names the old one, and a service manager hears of it alone (``NotifyAccess=main``).

    Attributes:
        is_held: whether this process is the one.
    """

    def __init__(self, pid_file: str | None, *, is_held: bool) -> None:
        self._pid_file = PidFile(pid_file) if pid_file else None
        self.is_held = is_held

    def write_pid(self) -> None:
        """Write the pid file, if this process is in office and one is wanted.

        Raises:
            BootError: it cannot be written.
        """
        if self.is_held and self._pid_file is not None:
            self._pid_file.write()

    def take(self) -> None:
        """Come into office."""
        self.is_held = True
        try:
            self.write_pid()
        except BootError as error:
            log.error("%s", error)  # too late to go back: the old master has closed its sockets

    def announce(self, serving: Generation) -> None:
        """Say that all workers of a generation serve."""
        say_ready(serving.target, serving.config.listen_addresses())

    def tell_reloading(self) -> None:
        """Tell the service manager that a reload or an upgrade begins; ``READY=1`` ends it."""
        self.tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def tell(self, state: str) -> None:
        """Tell the service manager a state, if this process is in office."""
        if self.is_held:
            notify_service_manager(state)

    def hand_on(self, pid: int) -> None:
        """Leave the office to another process, which writes its own pid file from now on."""
        self.tell(f"MAINPID={pid}")
        self.is_held = False

    def close(self) -> None:
        """Remove the pid file, if it is this process's."""
        if self.is_held and self._pid_file is not None:
            self._pid_file.remove()
