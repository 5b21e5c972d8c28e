"""The log of events: one line an event and one write a line, and never an error into the process that logs."""

from __future__ import annotations

import logging
import os
import re
import threading
import types
from collections.abc import Callable, Iterator

import pytest

from minato.telemetry import log as log_module
from minato.telemetry.log import MAX_LINE_BYTES, LineHandler, describe_exception, setup_logging

ReplaceWrite = Callable[[types.ModuleType, Callable[[int, bytes], int]], None]

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARNING|ERROR) +([a-z.]+)\[(\d+)\]: (.*)")


class Pipe:
    """A pipe to log into; the write end blocks, as that of a real stderr does."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)

    def read(self) -> bytes:
        """Return what was written so far."""
        data = b""
        try:
            while piece := os.read(self.read_fd, 65536):
                data += piece
        except BlockingIOError:
            pass
        return data

    def fill(self) -> None:
        os.set_blocking(self.write_fd, False)
        try:
            while True:
                os.write(self.write_fd, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(self.write_fd, True)

    def close(self) -> None:
        for fd in (self.read_fd, self.write_fd):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "PATIENCE_MS", 0)


def test_event_is_one_line_with_time_level_area_and_pid(pipe: Pipe) -> None:
    setup_logging("info", pipe.write_fd)
    logging.getLogger("minato.health").warning("upstream %s is down", "a:1")
    match = LINE.fullmatch(pipe.read().decode().removesuffix("\n"))
    assert match is not None
    assert match.groups() == ("WARNING", "health", str(os.getpid()), "upstream a:1 is down")


def test_events_below_the_level_are_left_out(pipe: Pipe) -> None:
    setup_logging("WARNING", pipe.write_fd)
    logging.getLogger("minato.net").info("not said")
    logging.getLogger("minato.net").error("said")
    assert pipe.read().count(b"\n") == 1


def test_unknown_level_is_an_error() -> None:
    with pytest.raises(ValueError, match="loud"):
        setup_logging("loud")


def test_set_up_twice_logs_once(pipe: Pipe) -> None:
    setup_logging("info", pipe.write_fd)
    setup_logging("info", pipe.write_fd)
    logging.getLogger("minato").info("once")
    assert pipe.read().count(b"once") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb", "a\\nb"),
        ("a\r\nINFO forged", "a\\r\\nINFO forged"),
        ("\x1b[31mred\x9b", "\\x1b[31mred\\x9b"),
        ("next\u2028line", "next\\u2028line"),
        ("umlaut ä", "umlaut ä"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_message_cannot_forge_a_line_or_move_the_cursor(pipe: Pipe, text: str, expected: str) -> None:
    setup_logging("info", pipe.write_fd)
    logging.getLogger("minato.net").info("%s", text)
    assert pipe.read().decode().endswith(f": {expected}\n")


def test_long_line_is_cut_to_what_a_pipe_takes_at_once(pipe: Pipe) -> None:
    setup_logging("info", pipe.write_fd)
    logging.getLogger("minato.net").info("ä" * 5000)
    line = pipe.read()
    assert MAX_LINE_BYTES - 2 <= len(line) <= MAX_LINE_BYTES
    assert line.endswith("ä...\n".encode())


def test_traceback_goes_into_the_line(pipe: Pipe) -> None:
    setup_logging("info", pipe.write_fd)
    try:
        int("x")
    except ValueError:
        logging.getLogger("minato.worker").exception("it failed")
    line = pipe.read().decode()
    assert line.count("\n") == 1
    assert re.search(r"it failed: ValueError: .*'x' \(at telemetry/test_log\.py:\d+ test_traceback_goes", line)


def test_exception_names_its_cause() -> None:
    try:
        try:
            raise OSError("disk")
        except OSError as error:
            raise RuntimeError("worse") from error
    except RuntimeError as error:
        assert describe_exception(error).endswith("; after OSError: disk")


def test_arguments_that_do_not_fit_are_logged_as_they_are(pipe: Pipe) -> None:
    setup_logging("info", pipe.write_fd)
    logging.getLogger("minato.net").info("%d items", "many")
    assert b"'%d items' ('many',)" in pipe.read()


def test_stderr_that_is_gone_does_not_raise(pipe: Pipe) -> None:
    setup_logging("info", pipe.write_fd)
    os.close(pipe.read_fd)
    pipe.read_fd = -1
    logging.getLogger("minato.net").info("nobody reads")  # EPIPE


def test_disk_that_is_full_does_not_raise() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        LineHandler(fd).handle(logging.makeLogRecord({"name": "minato.net", "msg": "x"}))
    finally:
        os.close(fd)


@pytest.mark.usefixtures("impatient")
def test_stderr_that_nobody_reads_does_not_block_and_the_loss_is_told_later(pipe: Pipe) -> None:
    setup_logging("info", pipe.write_fd)
    logger = logging.getLogger("minato.net")
    pipe.fill()
    logger.info("lost one")
    logger.info("lost two")
    pipe.read()
    logger.info("heard")
    lines = pipe.read().decode().splitlines()
    assert [line.partition("]: ")[2] for line in lines] == [
        "2 log lines were lost: stderr could not be written",
        "heard",
    ]


@pytest.mark.usefixtures("impatient")
def test_every_write_is_a_whole_line(pipe: Pipe, replace_write: ReplaceWrite) -> None:
    writes: list[bytes] = []
    replace_write(log_module, lambda fd, data: writes.append(data) or len(data))
    setup_logging("info", pipe.write_fd)
    logging.getLogger("minato.net").info("one")
    logging.getLogger("minato.net").info("two")
    assert [data.count(b"\n") for data in writes] == [1, 1]
    assert all(data.endswith(b"\n") for data in writes)


def test_fork_while_another_thread_logs_leaves_the_child_able_to_log(pipe: Pipe) -> None:
    setup_logging("info", pipe.write_fd)
    logger = logging.getLogger("minato.net")
    stop = threading.Event()

    def chatter() -> None:
        while not stop.is_set():
            logger.debug("below the level")
            LineHandler(devnull).handle(logging.makeLogRecord({"name": "minato.net", "msg": "x"}))

    devnull = os.open(os.devnull, os.O_WRONLY)
    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                logger.info("child")
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        thread.join()
        os.close(devnull)
    assert pipe.read().count(b": child\n") == 20


def test_two_threads_may_wait_for_a_reader_that_lags() -> None:
    pipe = Pipe()
    pipe.fill()
    os.set_blocking(pipe.write_fd, True)
    handler = LineHandler(pipe.write_fd)
    errors: list[Exception] = []
    together = threading.Barrier(2)

    def say() -> None:
        together.wait(5)
        try:
            handler.emit(logging.LogRecord("minato.x", logging.INFO, "", 0, "hello", None, None))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=say) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
