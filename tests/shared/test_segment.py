"""Segments: names that tell masters apart, leftovers removed, no memory said clearly."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minato.errors import BootError
from minato.shared import segment
from minato.shared.board import Board, remove_leftovers


def test_the_name_holds_pid_and_start_time() -> None:
    pid = os.getpid()
    assert segment.segment_name(pid, 7) == f"minato-{pid}-{segment.process_start_ticks(pid)}-7"


def test_start_time_is_read_behind_a_command_with_spaces_and_parentheses() -> None:
    script = "import os, ctypes, sys; ctypes.CDLL(None).prctl(15, b'a ) R (b'); print(os.getpid(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ticks = segment.process_start_ticks(process.pid)
        own = segment.process_start_ticks(os.getpid())
        assert ticks is not None
        assert own is not None
        assert own <= ticks < own + 3600 * os.sysconf("SC_CLK_TCK")
        process.kill()


def test_no_start_time_for_a_process_that_is_gone_or_a_zombie() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert segment.process_start_ticks(pid) is None
    os.waitpid(pid, 0)
    assert segment.process_start_ticks(pid) is None


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for /dev/shm, where a minato of another test may clear away leftovers at any time."""
    monkeypatch.setattr(segment, "DIRECTORY", str(tmp_path))
    return tmp_path


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_a_killed_masters_segment_is_removed() -> None:
    script = (
        "import os, signal\n"
        "from minato.shared.board import Board\n"
        "board = Board.create(slots=1, upstream_keys=['a'], serial=1)\n"
        "print(board.name, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.startswith("minato-")
    remove_leftovers()
    assert not os.path.exists(f"/dev/shm/{done.stdout.strip()}")


def test_a_living_masters_segment_stays() -> None:
    living = Board.create(slots=1, upstream_keys=["a"], serial=906)
    assert living.name not in remove_leftovers()
    assert os.path.exists(f"/dev/shm/{living.name}")
    living.unlink()
    living.close()


def test_leftovers_are_told_by_pid_and_start_time(directory: Path) -> None:
    ticks = segment.process_start_ticks(os.getpid())
    assert ticks is not None
    living = f"minato-{os.getpid()}-{ticks}-1"
    pid_used_again = f"minato-{os.getpid()}-{ticks - 1}-1"
    gone = "minato-999999999-1-3"
    for name in (living, pid_used_again, gone):
        (directory / name).write_bytes(b"")
    assert set(remove_leftovers()) == {pid_used_again, gone}
    assert _names(directory) == {living}


def test_names_that_only_resemble_ours_are_left_alone(directory: Path) -> None:
    names = {"minato-1-2", "xminato-1-2-3", "minato-1-2-3x", "minato-a-2-3", "minato-999999999-2-", "psm_12345"}
    for name in names:
        (directory / name).write_bytes(b"")
    assert remove_leftovers() == []
    assert _names(directory) == names


def test_no_leftovers_where_there_is_no_dev_shm(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "DIRECTORY", str(directory / "missing"))
    assert remove_leftovers() == []


def test_another_users_leftover_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> bool:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(segment, "_segments", lambda: ["minato-999999999-1-1"])
    monkeypatch.setattr(segment, "remove_segment", refuse)
    assert segment.remove_leftovers() == []


@pytest.mark.parametrize(
    ("code", "says"),
    [(errno.ENOENT, "no such file or directory"), (errno.EACCES, "permission denied"), (errno.EMFILE, "too many open")],
)
def test_no_shared_memory_is_a_boot_error_in_one_line(monkeypatch: pytest.MonkeyPatch, code: int, says: str) -> None:
    def fail(name: str, size_bytes: int, *, create: bool) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(segment, "_open", fail)
    with pytest.raises(BootError, match=rf"^cannot create shared memory /dev/shm/minato-\S+: {says}[^\n]*$"):
        Board.create(slots=1, upstream_keys=["a"], serial=907)


def test_a_full_dev_shm_is_a_boot_error_and_leaves_no_segment_and_no_fd(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    fds_before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BootError, match="no space left on device"):
        Board.create(slots=1, upstream_keys=["a"], serial=908)
    assert not os.path.exists(f"/dev/shm/{segment.segment_name(os.getpid(), 908)}")
    assert len(os.listdir("/proc/self/fd")) == fds_before


def test_a_segment_that_fails_on_resize_starts_no_tracker_and_leaves_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(BootError, match="no space left"):
        Board.create(slots=1, upstream_keys=["a"], serial=909)
    assert not os.path.exists(f"/dev/shm/{segment.segment_name(os.getpid(), 909)}")


def test_the_memory_is_reserved_when_the_board_is_made() -> None:
    board = Board.create(slots=64, upstream_keys=[f"http://127.0.0.1:{port}/" for port in range(1000)], serial=910)
    status = os.stat(f"/dev/shm/{board.name}")
    board.unlink()
    board.close()
    assert status.st_blocks * 512 >= status.st_size
