"""Issue line 9, logs: one line an event, nothing per request by default, the access log in both formats, USR1."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .harness import App, Minato, fetch, request_bytes, response_bytes, wait_until

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]

COMBINED = re.compile(
    r'(?P<client>\S+) - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "(?P<line>(?:[^"\\]|\\x[0-9A-F]{2})*)" '
    r'(?P<status>\d{3}) (?P<bytes>\d+) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)"'
)


def lines_of(path: Path, number: int) -> list[str]:
    """Wait until the file has that many lines and return them."""

    def read() -> list[str]:
        found = path.read_text().splitlines() if path.exists() else []
        return found if len(found) >= number else []

    lines = wait_until(read, f"{number} lines in the access log", 5)
    assert len(lines) == number
    return lines


def test_nothing_is_logged_per_request_by_default(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin())
    before = len(instance.lines)
    for target in (b"/", b"/status/500", b"/status/404"):
        fetch(instance.port, target)
    assert fetch(instance.port, host=b"unknown.test").status == 404
    instance.signal(signal.SIGUSR1)
    instance.wait_for_log(r"reopening", since=before)
    assert len(instance.lines) == before + 1


def test_every_event_is_one_line_with_time_and_level(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    instance = minato(app, health={"interval": 0.3})
    app.health.status = b"500 Sick"
    instance.wait_for_log("is down")
    instance.reload()
    for line in instance.lines:
        assert line.startswith("minato: ready") or re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.,]\d+ +[A-Z]+ ", line), (
            line
        )


def test_log_level_decides_how_much_is_said(minato: StartMinato, origin: MakeApp) -> None:
    quiet = minato(origin(), arguments=("--log-level", "error"))
    quiet.signal(signal.SIGUSR1)
    assert fetch(quiet.port).status == 200
    quiet.signal(signal.SIGTERM)
    assert quiet.wait_exit() == 0
    assert [line for line in quiet.lines if not line.startswith("minato: ready")] == []


def test_combined_access_log(minato: StartMinato, origin: MakeApp, tmp_path: Path) -> None:
    app = origin()
    path = tmp_path / "access.log"
    instance = minato(app, access_log={"path": str(path), "format": "combined"})
    fetch(instance.port, b"/bytes/1234?x=y", fields=[(b"Referer", b"http://r.test/"), (b"User-Agent", b"agent/1.0")])
    fetch(instance.port, b"/status/404", method=b"POST", body=b"x")
    fetch(instance.port, host=b"unknown.test")
    matches = [COMBINED.fullmatch(line) for line in lines_of(path, 3)]
    assert all(matches)
    seen = [match.group("client", "line", "status", "bytes", "referer", "agent") for match in matches if match]
    assert seen[0] == ("127.0.0.1", "GET /bytes/1234?x=y HTTP/1.1", "200", "1234", "http://r.test/", "agent/1.0")
    assert seen[1] == ("127.0.0.1", "POST /status/404 HTTP/1.1", "404", "7", "-", "-")
    assert seen[2][1:3] == ("GET / HTTP/1.1", "404")


def test_json_access_log(minato: StartMinato, origin: MakeApp, tmp_path: Path) -> None:
    app = origin()
    app.routes[b"/cached"] = response_bytes(b"body", fields=[(b"Cache-Control", b"max-age=60")])
    path = tmp_path / "access.log"
    instance = minato(app, access_log={"path": str(path), "format": "json"}, cache={"enabled": True})
    for _ in range(2):
        fetch(instance.port, b"/cached", fields=[(b"User-Agent", b'"quoted"\xff')])
    miss, hit = (json.loads(line) for line in lines_of(path, 2))
    assert (miss["method"], miss["target"], miss["status"], miss["body_bytes"]) == ("GET", "/cached", 200, 4)
    assert (miss["client"], miss["host"], miss["version"]) == ("127.0.0.1", "test.local", "HTTP/1.1")
    assert miss["upstream"] == f"127.0.0.1:{app.port}" and 0 <= miss["duration_ms"] < 10_000
    assert '"quoted"' in miss["user_agent"]
    assert hit["cache"] == "hit" and miss["cache"] != "hit" and hit["upstream"] == ""


def test_no_line_can_be_forged(minato: StartMinato, origin: MakeApp, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    instance = minato(origin(), access_log={"path": str(path)})
    fetch(instance.port, b"/", fields=[(b"User-Agent", b'x" 200 0 "\\\xe2\x80\xa8'), (b"Referer", b'"')])
    (line,) = lines_of(path, 1)
    match = COMBINED.fullmatch(line)
    assert match and line.isascii() and "\\x22" in match["agent"] and "\\x5C" in match["agent"]


def test_failures_are_told_in_the_log_and_not_to_the_client(
    minato: StartMinato, origin: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    scripted = origin(lambda connection: (connection.read_request(), connection.reset()))
    instance = minato(scripted, access_log={"path": str(path), "format": "json"}, service_keys={"retries": 0})
    assert fetch(instance.port).status == 502
    (line,) = lines_of(path, 1)
    entry = json.loads(line)
    assert entry["status"] == 502 and entry["failure"] and entry["upstream"] == f"127.0.0.1:{scripted.port}"


def test_malformed_request_and_left_client_are_logged_too(minato: StartMinato, origin: MakeApp, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    app = origin()
    instance = minato(app, access_log={"path": str(path), "format": "json"})
    with instance.client() as client:
        client.send(b"BAD\r\n\r\n")
        assert client.receive().status == 400
    assert json.loads(lines_of(path, 1)[0])["status"] == 400
    with instance.client() as client:
        client.send(request_bytes(target=b"/slow"))
        app.wait_requests(1)
    entry = json.loads(lines_of(path, 2)[1])
    app.gate.set()
    assert entry["target"] == "/slow" and entry["failure"] and entry["status"] in (0, 499)


def test_access_log_on_standard_output(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(), access_log={"path": "-"})
    fetch(instance.port, b"/bytes/10")
    (line,) = lines_of(instance.stdout_path, 1)
    assert COMBINED.fullmatch(line)


def test_a_pipe_with_a_fast_reader_loses_no_line(minato: StartMinato, origin: MakeApp, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    instance = minato(origin(), workers=1, access_log={"path": str(path)})
    count, lines = 2_000, [0]

    def read() -> None:
        with path.open("rb") as pipe:
            for line in pipe:
                lines[0] += b"GET /bytes/1 " in line

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    fields = [(b"user-agent", b"x" * 3_000)]
    for _ in range(count // 500):
        with instance.client() as client:
            for _ in range(50):
                client.send(request_bytes(target=b"/bytes/1", fields=fields) * 10)
                for _ in range(10):
                    assert client.receive().status == 200
    instance.signal(signal.SIGTERM)
    assert instance.wait_exit() == 0
    reader.join(10)
    assert lines == [count]
    assert not instance.find_log("access log")


def test_access_log_is_off_by_default(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin())
    fetch(instance.port)
    instance.signal(signal.SIGTERM)
    assert instance.wait_exit() == 0
    assert instance.stdout_path.read_bytes() == b""


def test_usr1_opens_the_access_log_anew(minato: StartMinato, origin: MakeApp, tmp_path: Path) -> None:
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    instance = minato(origin(), workers=2, access_log={"path": str(path)})
    fetch(instance.port, b"/before")
    lines_of(path, 1)
    path.rename(moved)
    instance.signal(signal.SIGUSR1)
    wait_until(path.exists, "the new file")
    wait_until(lambda: (fetch(instance.port, b"/after") and path.read_text().count("/after") >= 2) or None, "lines", 10)
    assert "/before" in moved.read_text() and "/before" not in path.read_text()


def test_lines_of_a_stopping_worker_are_not_lost(minato: StartMinato, origin: MakeApp, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    instance = minato(origin(), workers=2, access_log={"path": str(path)})
    for number in range(50):
        fetch(instance.port, b"/%d" % number)
    instance.signal(signal.SIGTERM)
    assert instance.wait_exit() == 0
    assert len(path.read_text().splitlines()) == 50


def test_lines_of_several_workers_never_mix(minato: StartMinato, origin: MakeApp, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    instance = minato(origin(), workers=3, access_log={"path": str(path)})
    agent = b"x" * 2000

    def ask() -> None:
        for _ in range(40):
            fetch(instance.port, fields=[(b"User-Agent", agent)])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(COMBINED.fullmatch(line) for line in lines_of(path, 160))


def test_access_log_that_cannot_be_opened_is_a_clear_exit(minato: StartMinato, origin: MakeApp, tmp_path: Path) -> None:
    instance = minato(origin(), access_log={"path": str(tmp_path / "no" / "such" / "file")}, wait_ready=False)
    assert instance.wait_exit() in (1, 2)
    assert instance.find_log(r"no/such/file")


@pytest.mark.parametrize("log_format", ["combined", "json"])
def test_full_disk_does_not_stop_the_traffic(minato: StartMinato, origin: MakeApp, log_format: str) -> None:
    instance = minato(origin(), access_log={"path": "/dev/full", "format": log_format})
    for _ in range(20):
        assert fetch(instance.port).status == 200
    instance.wait_for_log(r"/dev/full cannot be written")
    assert fetch(instance.port).status == 200
