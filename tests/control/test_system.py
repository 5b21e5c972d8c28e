"""The pid file and the service manager."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from minato.control.system import PidFile, notify_service_manager
from minato.errors import BootError


def test_pid_file_holds_the_pid_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "minato.pid"
    pid_file = PidFile(str(path))
    pid_file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == [path]
    pid_file.remove()
    assert not path.exists()


def test_pid_file_of_another_process_stays(tmp_path: Path) -> None:
    path = tmp_path / "minato.pid"
    pid_file = PidFile(str(path))
    pid_file.write()
    path.write_text("1\n")
    pid_file.remove()
    assert path.read_text() == "1\n"


def test_pid_file_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BootError, match=r"^cannot write pid file .*/none/x: No such file or directory$"):
        PidFile(str(tmp_path / "none" / "x")).write()


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_service_manager_is_told(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(tmp_path / "notify") if kind == "path" else f"@minato-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if kind == "abstract" else name)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify_service_manager("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_without_a_service_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_service_manager("READY=1")


def test_service_manager_that_is_gone_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify_service_manager("READY=1")
    assert "cannot notify the service manager" in caplog.text
