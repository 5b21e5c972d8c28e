"""How a worker ended: by its own fault, by somebody's wish, or because the kernel ran out of memory."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from minato.control.deaths import Coroner
from minato.control.loads import resident_bytes


@pytest.fixture
def vmstat(tmp_path: Path) -> Path:
    path = tmp_path / "vmstat"
    path.write_text("nr_free_pages 5\noom_kill 7\noom_kill_other 9\n")
    return path


@pytest.mark.parametrize(
    ("exit_code", "how", "is_clean", "is_crash"),
    [
        (0, "ended with status 0", True, False),
        (1, "ended with status 1", False, True),
        (3, "ended with status 3", False, True),
        (-signal.SIGSEGV, "was killed by SIGSEGV", False, True),
        (-signal.SIGABRT, "was killed by SIGABRT", False, True),
        (-signal.SIGKILL, "was killed by SIGKILL", False, False),
        (-signal.SIGTERM, "was killed by SIGTERM", False, False),
        (-63, "was killed by signal 63", False, False),
    ],
)
def test_fault_and_wish_are_told_apart(vmstat: Path, exit_code: int, how: str, is_clean: bool, is_crash: bool) -> None:
    death = Coroner(vmstat).examine(exit_code)
    assert (death.how, death.is_clean, death.is_crash) == (how, is_clean, is_crash)


def test_kill_for_want_of_memory_is_a_crash_once(vmstat: Path) -> None:
    coroner = Coroner(vmstat)
    vmstat.write_text("oom_kill 8\n")
    first, second = coroner.examine(-signal.SIGKILL), coroner.examine(-signal.SIGKILL)
    assert first.is_crash and "ran out of memory" in first.how
    assert not second.is_crash


@pytest.mark.parametrize("text", [None, "", "oom_kill many\n"])
def test_kernel_that_does_not_count_is_no_problem(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "vmstat"
    if text is not None:
        path.write_text(text)
    assert not Coroner(path).examine(-signal.SIGKILL).is_crash


def test_memory_of_a_process_is_what_ps_tells_and_nothing_where_it_is_gone(tmp_path: Path) -> None:
    assert 1_000_000 < resident_bytes(os.getpid()) < 10**11
    assert resident_bytes(1, tmp_path) == 0
