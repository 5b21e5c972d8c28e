"""The access log's file: whole lines only, and no trouble of the file becomes trouble of the proxy."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minato.config.model import AccessLogConfig, LogFormat
from minato.errors import BootError
from minato.telemetry import access_log as access_log_module
from minato.telemetry.access_log import (
    CLOSE_S,
    FLUSH_BYTES,
    FLUSH_S,
    MAX_WAITING_BYTES,
    RETRY_S,
    STUCK_S,
    AccessEntry,
    AccessLog,
)

ReplaceWrite = Callable[[types.ModuleType, Callable[[int, bytes], int]], None]

ENTRY = AccessEntry("192.0.2.7", b"GET", b"/", 11, 200, 5, b"", b"ua", b"h", 0.1, "127.0.0.1:9001", "", 1_795_498_894.5)


def entry_for(target: str) -> AccessEntry:
    return dataclasses.replace(ENTRY, target=target.encode())


def open_log(path: Path | str, log_format: LogFormat = LogFormat.JSON) -> AccessLog:
    access_log = AccessLog.open(AccessLogConfig(str(path), log_format))
    assert access_log is not None
    return access_log


def targets_in(data: bytes) -> list[str]:
    return [json.loads(line)["target"] for line in data.splitlines()]


class FakeWrite:
    """Stands for ``os.write``: takes as many bytes as the plan says, or raises; afterwards writes for real."""

    def __init__(self, *plan: int | OSError) -> None:
        self.plan = list(plan)

    def __call__(self, fd: int, data: bytes) -> int:
        step = self.plan.pop(0) if self.plan else len(data)
        if isinstance(step, OSError):
            raise step
        return REAL_WRITE(fd, data[:step])


REAL_WRITE = os.write
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_off_is_no_log() -> None:
    assert AccessLog.open(AccessLogConfig("off")) is None


def test_lines_wait_for_the_flush(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access_log = open_log(path)
    access_log.record(entry_for("/1"))
    assert path.read_bytes() == b""
    access_log.flush()
    assert targets_in(path.read_bytes()) == ["/1"]


def test_a_full_buffer_flushes_itself(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access_log = open_log(path)
    for _ in range(FLUSH_BYTES // 200):
        access_log.record(ENTRY)
    assert path.stat().st_size > 0


def test_close_writes_what_waits_and_may_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access_log = open_log(path)
    access_log.record(entry_for("/1"))
    access_log.close()
    access_log.close()
    assert targets_in(path.read_bytes()) == ["/1"]


def test_workers_append_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b"before\n")
    logs = [open_log(path, LogFormat.COMBINED) for _ in range(3)]
    for turn in range(30):
        for index, access_log in enumerate(logs):
            access_log.record(entry_for(f"/{index}/{turn}"))
            access_log.flush()
    lines = path.read_bytes().splitlines()
    assert lines[0] == b"before"
    assert len(lines) == 91


@pytest.mark.parametrize("name", ["missing/access.log", ".", "nul\0byte"])
def test_path_that_cannot_be_opened_is_a_boot_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(BootError, match="cannot open access log"):
        AccessLog.open(AccessLogConfig(str(tmp_path / name)))


def test_reopen_goes_on_in_a_new_file_after_rotation(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access_log = open_log(path)
    access_log.record(entry_for("/old"))
    path.rename(tmp_path / "access.log.1")
    access_log.reopen()
    access_log.record(entry_for("/new"))
    access_log.flush()
    assert targets_in((tmp_path / "access.log.1").read_bytes()) == ["/old"]
    assert targets_in(path.read_bytes()) == ["/new"]


def test_reopen_that_fails_goes_on_with_the_old_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "access.log"
    access_log = open_log(path)
    moved = tmp_path / "moved"
    path.rename(moved)
    path.mkdir()
    access_log.reopen()
    access_log.record(entry_for("/1"))
    access_log.flush()
    assert targets_in(moved.read_bytes()) == ["/1"]
    assert "going on with the file that was open" in caplog.text


def test_reopen_leaks_no_descriptor(tmp_path: Path) -> None:
    access_log = open_log(tmp_path / "access.log")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        access_log.reopen()
    assert len(os.listdir("/proc/self/fd")) == before


def test_disk_full_is_said_once_and_lines_survive_it(
    tmp_path: Path, replace_write: ReplaceWrite, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "access.log"
    access_log = open_log(path)
    replace_write(access_log_module, FakeWrite(FULL, FULL, FULL))
    for turn in range(3):
        access_log.record(entry_for(f"/{turn}"))
        access_log.flush()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    access_log.flush()
    assert targets_in(path.read_bytes()) == ["/0", "/1", "/2"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
    assert "0 lines were lost" in caplog.text


@pytest.mark.parametrize("taken", [1, 40, 400, 450])
def test_line_torn_by_a_short_write_is_written_again_whole(
    tmp_path: Path, replace_write: ReplaceWrite, taken: int
) -> None:
    path = tmp_path / "access.log"
    access_log = open_log(path)
    replace_write(access_log_module, FakeWrite(taken, 1, 1, FULL, 30))
    for turn in range(3):
        access_log.record(entry_for(f"/{turn}"))
    for _ in range(6):
        access_log.flush()
    whole = [line for line in path.read_bytes().splitlines() if line.endswith(b"}")]
    assert targets_in(b"\n".join(whole)) == ["/0", "/1", "/2"]


def test_short_write_at_the_end_of_a_line_tears_nothing(tmp_path: Path, replace_write: ReplaceWrite) -> None:
    path = tmp_path / "access.log"
    access_log = open_log(path)
    access_log.record(entry_for("/0"))
    length = access_log._waiting_bytes
    access_log.record(entry_for("/1"))
    replace_write(access_log_module, FakeWrite(length))
    access_log.flush()
    access_log.flush()
    assert targets_in(path.read_bytes()) == ["/0", "/1"]


def test_what_waits_is_bounded_and_the_loss_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    access_log = open_log("/dev/full")
    line_bytes = len(access_log._format(ENTRY))
    fits = MAX_WAITING_BYTES // line_bytes
    for _ in range(fits + 7):
        access_log.record(ENTRY)
    assert access_log.lost_lines == 7
    assert caplog.text.count("cannot be written") == 1
    access_log.close()
    assert access_log.lost_lines == fits + 7


def test_fifo_without_a_reader_neither_blocks_nor_fails(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    access_log = open_log(path)
    for turn in range(2000):
        access_log.record(entry_for(f"/{turn}"))
    access_log.flush()
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        data = b""
        while len(targets_in(data)) < 2000:
            data += os.read(reader, 1 << 20)
            access_log.flush()
    finally:
        os.close(reader)
    assert targets_in(data) == [f"/{turn}" for turn in range(2000)]


class Piped:
    """An access log on a pipe, its reader and its clock."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.now_s = 100.0
        self.full = 0
        self.count = 0
        self.log = AccessLog(AccessLogConfig(str(path), LogFormat.JSON), lambda: self.now_s)
        self.log.on_full = self._on_full
        self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def _on_full(self) -> None:
        self.full += 1

    def fill(self) -> None:
        """Write until no more fits, and one line more."""
        while not self.full:
            self.write()
            self.log.flush()
        self.write()

    def write(self) -> None:
        self.log.record(entry_for(f"/{self.count}"))
        self.count += 1

    def read(self) -> bytes:
        return os.read(self.reader, 4 << 20)


@pytest.fixture
def piped(tmp_path: Path) -> Iterator[Piped]:
    piped = Piped(tmp_path / "fifo")
    yield piped
    while piped.log._lines:
        piped.log.flush()
        piped.read()
    piped.log.close()
    os.close(piped.reader)


def test_a_pipe_that_is_full_for_a_moment_is_no_failure(piped: Piped, caplog: pytest.LogCaptureFixture) -> None:
    piped.fill()
    assert piped.log.next_flush_s == RETRY_S
    piped.now_s += STUCK_S / 2
    piped.log.flush()
    data = piped.read()
    piped.log.flush()
    assert targets_in(data + piped.read()) == [f"/{turn}" for turn in range(piped.count)]
    assert (piped.full, piped.log.lost_lines, caplog.records) == (1, 0, [])
    assert piped.log.next_flush_s == FLUSH_S


def test_a_pipe_that_takes_little_by_little_is_tried_again_soon(piped: Piped) -> None:
    piped.fill()
    for _ in range(5):
        os.read(piped.reader, 8192)
        for _ in range(100):
            piped.write()
        piped.now_s += STUCK_S * 0.9
        piped.log.flush()
        assert piped.log.next_flush_s == RETRY_S


def test_a_pipe_that_nobody_reads_for_a_second_is_a_failure_and_tried_each_second(
    piped: Piped, caplog: pytest.LogCaptureFixture
) -> None:
    piped.fill()
    piped.now_s += STUCK_S
    for _ in range(3):
        piped.log.flush()
    assert piped.log.next_flush_s == FLUSH_S
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "its reader does not keep up" in caplog.text
    piped.read()
    piped.log.flush()
    assert "is written again; 0 lines were lost" in caplog.text


def test_a_line_lost_to_a_full_pipe_is_said_at_once(piped: Piped, caplog: pytest.LogCaptureFixture) -> None:
    piped.fill()
    while not piped.log.lost_lines:
        assert not caplog.records
        piped.write()
    piped.write()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    piped.read()
    piped.log.flush()
    piped.read()
    piped.log.flush()
    assert "is written again; 2 lines were lost" in caplog.text


def test_a_pipe_is_given_more_room(piped: Piped) -> None:
    piped.fill()
    assert len(piped.read()) > 65_536


def test_close_waits_for_a_reader_that_is_a_little_late(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    access_log = open_log(path)
    read_fd = os.open(path, os.O_RDONLY)
    count = 2 * MAX_WAITING_BYTES // len(access_log._format(ENTRY)) - 1000
    for _ in range(count):
        access_log.record(ENTRY)
    data: list[bytes] = []

    def read() -> None:
        time.sleep(CLOSE_S / 5)
        while chunk := os.read(read_fd, 1 << 20):
            data.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    access_log.close()
    reader.join()
    os.close(read_fd)
    assert b"".join(data).count(b"\n") == count
    assert access_log.lost_lines == 0 and not caplog.records


def test_close_waits_not_for_ever_and_says_what_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    access_log = open_log(path)
    for _ in range(20_000):
        access_log.record(ENTRY)
    began_s = time.monotonic()
    access_log.close()
    assert CLOSE_S * 0.9 <= time.monotonic() - began_s < CLOSE_S + 2
    written = 20_000 - access_log.lost_lines
    assert 0 < written < 20_000
    assert caplog.messages[-1] == f"access log {path}: {access_log.lost_lines} lines were lost"


def test_writes_to_a_pipe_are_whole_lines_of_at_most_a_page(tmp_path: Path, replace_write: ReplaceWrite) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    access_log = open_log(path, LogFormat.COMBINED)
    writes: list[bytes] = []
    replace_write(access_log_module, lambda fd, data: writes.append(data) or len(data))
    for turn in range(60):
        access_log.record(dataclasses.replace(ENTRY, target=b"/" + b"\xff" * (turn * 100)))
    access_log.flush()
    assert max(map(len, writes)) <= 4096
    assert all(data.endswith(b"\n") for data in writes)
    assert b"".join(writes).count(b"\n") == 60


SCRIPT = """
import sys
from minato.config.model import AccessLogConfig
from minato.telemetry.access_log import AccessEntry, AccessLog
log = AccessLog.open(AccessLogConfig("-"))
for _ in range(int(sys.argv[1])):
    log.record(AccessEntry("c", b"GET", b"/", 11, 200, 5, b"", b"", b"", 0.1, "", "", 0.0))
log.close()
print("lost", log.lost_lines, file=sys.stderr)
"""


def test_dash_is_standard_output(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with target.open("w") as out:
        out.write("earlier\n")
        out.flush()
        subprocess.run([sys.executable, "-c", SCRIPT, "2"], stdout=out, check=True, timeout=30)
    assert target.read_text().count("GET / HTTP/1.1") == 2
    assert target.read_text().startswith("earlier\n")


def test_standard_output_that_nobody_reads_does_not_block() -> None:
    read_fd, write_fd = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, "50000"], stdout=write_fd, stderr=subprocess.PIPE, check=True, timeout=30
        )
        assert os.get_blocking(write_fd), "the mode of a pipe that others share was changed"
    finally:
        os.close(read_fd)
        os.close(write_fd)
    assert int(done.stderr.split()[-1]) > 0


def test_closed_standard_output_is_a_boot_error() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" 1 >&-', sys.executable, SCRIPT], capture_output=True, timeout=30, check=False
    )
    assert b"BootError: cannot open access log -" in done.stderr
