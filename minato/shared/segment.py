"""Shared-memory segments: names, making and removing them without a resource tracker, and dead masters' leftovers."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from multiprocessing import shared_memory
from multiprocessing.shared_memory import SharedMemory

from minato.errors import BootError

DIRECTORY = "/dev/shm"

_NAME = re.compile(r"minato-([0-9]+)-([0-9]+)-[0-9]+")


def segment_name(pid: int, serial: int) -> str:
    """Return ``minato-<pid>-<start time>-<serial>``; the start time, since pids are used again."""
    return f"minato-{pid}-{process_start_ticks(pid) or 0}-{serial}"


def process_start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when there is none, or only its zombie.

    Source: proc_pid_stat(5), fields 3 (state) and 22 (starttime).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses; it may hold spaces and parentheses itself.
    state, *rest = stat[stat.rindex(b")") + 2 :].split()
    return None if state in (b"Z", b"X") else int(rest[18])


def create_segment(name: str, size_bytes: int) -> SharedMemory:
    """Make a new segment, all zero, with its memory reserved.

    Raises:
        BootError: /dev/shm is missing, full or not ours to write.
    """
    try:
        segment = _open(name, size_bytes, create=True)
    except OSError as error:
        raise _boot_error(name, error) from error
    try:
        _reserve(name, size_bytes)
    except OSError as error:
        segment.close()
        remove_segment(name)
        raise _boot_error(name, error) from error
    return segment


def open_segment(name: str) -> SharedMemory:
    """Map a segment that exists.

    Raises:
        OSError: there is none of that name, or it is not ours to open.
    """
    return _open(name, 0, create=False)


def segment_buffer(segment: SharedMemory) -> memoryview:
    """Return the memory of an open segment."""
    if segment.buf is None:
        raise ValueError(f"segment {segment.name} is closed")
    return segment.buf


def remove_segment(name: str) -> bool:
    """Unlink a segment's name; processes that have it mapped keep it. Tell whether there was one to remove."""
    try:
        os.unlink(os.path.join(DIRECTORY, name))
    except FileNotFoundError:
        return False
    return True


def remove_leftovers() -> list[str]:
    """Remove the segments of masters that are gone, and return their names. Those of other users stay."""
    removed = []
    for name in _segments():
        match = _NAME.fullmatch(name)
        if match is None or process_start_ticks(int(match[1])) == int(match[2]):
            continue
        with contextlib.suppress(PermissionError):
            if remove_segment(name):
                removed.append(name)
    return removed


def _segments() -> list[str]:
    try:
        return sorted(os.listdir(DIRECTORY))
    except OSError:
        return []  # create_segment says it better


def _open(name: str, size_bytes: int, *, create: bool) -> SharedMemory:
    if sys.version_info >= (3, 13):
        return SharedMemory(name, create=create, size=size_bytes, track=False)
    with _no_tracker():
        return SharedMemory(name, create=create, size=size_bytes)


class _NoTracker:
    """Stands in for multiprocessing.resource_tracker where shared_memory calls it."""

    @staticmethod
    def register(name: str, rtype: str) -> None:
        """Track nothing."""

    @staticmethod
    def unregister(name: str, rtype: str) -> None:
        """Nothing was tracked."""


@contextlib.contextmanager
def _no_tracker() -> Iterator[None]:
    """Keep SharedMemory from registering with the resource tracker (Python 3.13 has ``track=False`` for that).

    The tracker is a process of its own, which would appear under the master, hold its file descriptors, and unlink the
    segment when the process that registered it dies, while workers still use it. Only the name inside the shared_memory
    module is exchanged, for the time of one call; whoever uses the tracker otherwise does not notice.
    """
    module = vars(shared_memory)
    tracker = module["resource_tracker"]
    module["resource_tracker"] = _NoTracker
    try:
        yield
    finally:
        module["resource_tracker"] = tracker


def _reserve(name: str, size_bytes: int) -> None:
    # A sized but unreserved segment on a full /dev/shm kills whoever touches it first with SIGBUS; fail here instead.
    fd = os.open(os.path.join(DIRECTORY, name), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    finally:
        os.close(fd)


def _boot_error(name: str, error: OSError) -> BootError:
    reason = (error.strerror or str(error)).lower()
    return BootError(f"cannot create shared memory {DIRECTORY}/{name}: {reason}")
