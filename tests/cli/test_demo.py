"""The demo: its origins' pages, and that they end with whoever started them."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from minato.config import load_config
from minato.demo.origins import LIFELINE_VARIABLE, DemoOrigins
from minato.demo.run import find_shipped_config
from minato.errors import BootError
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 20.0


def write_config(path: Path, listen: int, *ports: int) -> None:
    upstreams = ", ".join(f'{{host: "http://127.0.0.1:{port}", health_uri: "/health"}}' for port in ports)
    path.write_text(
        f'services:\n  - {{name: "demo", listen: "127.0.0.1", listen_port: {listen}, hosts: ["http://*/"], '
        f"upstreams: [{upstreams}]}}\n"
    )


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[int]:
    """The port of a running demo origin."""
    listen, port = free_port(), free_port()
    write_config(tmp_path / "c.yaml", listen, port)
    origins = DemoOrigins(load_config(str(tmp_path / "c.yaml")), {})
    yield port
    origins.stop()


def get(port: int, path: str, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def test_page_names_its_upstream(origin: int) -> None:
    response, body = get(origin, "/")
    assert response.status == 200
    assert f"127.0.0.1:{origin}".encode() in body


def test_cached_page_is_cacheable_and_others_are_not(origin: int) -> None:
    assert get(origin, "/cached")[0].headers["Cache-Control"] == "max-age=10"
    assert get(origin, "/")[0].headers["Cache-Control"] == "no-store"


def test_head_has_no_body_and_the_length_of_one(origin: int) -> None:
    response, body = get(origin, "/health", "HEAD")
    assert (response.status, body, response.headers["Content-Length"]) == (200, b"", "3")


def test_unknown_page_is_404(origin: int) -> None:
    assert get(origin, "/none?x")[0].status == 404


def test_events_come_one_by_one(origin: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", origin, timeout=WAIT_S)
    connection.request("GET", "/events")
    response = connection.getresponse()
    assert response.headers["Content-Type"] == "text/event-stream"
    assert [response.readline() for _ in range(3)] == [
        b"id: 1\n",
        b"data: event 1 from upstream 127.0.0.1:%d\n" % origin,
        b"\n",
    ]
    connection.close()


def test_posted_body_is_counted(origin: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", origin, timeout=WAIT_S)
    connection.request("POST", "/", body=b"x" * 100_000)
    assert b"received 100000 bytes" in connection.getresponse().read()
    connection.close()


def test_port_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        write_config(tmp_path / "c.yaml", free_port(), port)
        with pytest.raises(BootError, match=f"^cannot listen on 127.0.0.1:{port} for a demo origin: address already"):
            DemoOrigins(load_config(str(tmp_path / "c.yaml")), {})


def test_origins_go_on_for_who_takes_over_and_new_upstreams_get_theirs(tmp_path: Path) -> None:
    listen, first, second = [free_port() for _ in range(3)]
    environment: dict[str, str] = {}
    write_config(tmp_path / "c.yaml", listen, first)
    old = DemoOrigins(load_config(str(tmp_path / "c.yaml")), environment)
    lifeline, *played = environment[LIFELINE_VARIABLE].split()
    handed_on = {LIFELINE_VARIABLE: " ".join([str(os.dup(int(lifeline))), *played])}  # as an exec would
    write_config(tmp_path / "c.yaml", listen, first, second)
    new = DemoOrigins(load_config(str(tmp_path / "c.yaml")), handed_on)
    old.stop()
    assert [get(port, "/health")[1] for port in (first, second)] == [b"ok\n"] * 2
    assert LIFELINE_VARIABLE not in environment and len(handed_on[LIFELINE_VARIABLE].split()) == 3
    new.stop()
    wait_refused(first)
    wait_refused(second)


@pytest.mark.parametrize("value", ["", "x", "0,99999 127.0.0.1:1", "99999"])
def test_lifeline_that_is_none_is_of_no_account(tmp_path: Path, value: str) -> None:
    listen, port = free_port(), free_port()
    write_config(tmp_path / "c.yaml", listen, port)
    origins = DemoOrigins(load_config(str(tmp_path / "c.yaml")), {LIFELINE_VARIABLE: value})
    assert get(port, "/health")[1] == b"ok\n"
    origins.stop()


def test_shipped_config_can_be_played() -> None:
    config = load_config(find_shipped_config())
    assert [str(address) for address in config.listen_addresses()] == ["*:8080"]
    assert {upstream.authority for service in config.services for upstream in service.upstreams} == {
        "127.0.0.1:9001",
        "127.0.0.1:9002",
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_demo_serves_and_leaves_nothing_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    listen, first, second = free_port(), free_port(), free_port()
    write_config(tmp_path / "c.yaml", listen, first, second)
    demo = subprocess.Popen(
        [sys.executable, str(ROOT / "bin" / "minato"), "demo", "--workers", "2", "--config", str(tmp_path / "c.yaml")],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    children: list[psutil.Process] = []
    try:
        assert demo.stdout is not None
        assert any(f"kill -HUP {demo.pid}" in line for line in iter(demo.stdout.readline, ""))
        children = psutil.Process(demo.pid).children()
        assert len(children) == 3
        names = {get(listen, "/")[1].split(b"<b>")[1].split(b"</b>")[0] for _ in range(10)}
        assert names == {f"127.0.0.1:{port}".encode() for port in (first, second)}
        os.kill(demo.pid, number)
        assert demo.wait(WAIT_S) == (0 if number is not signal.SIGKILL else -signal.SIGKILL)
        assert psutil.wait_procs(children, timeout=WAIT_S)[1] == []
    finally:
        demo.kill()
        demo.communicate()
        for child in children:
            if child.is_running():
                child.kill()
        for left in Path("/dev/shm").glob(f"minato-{demo.pid}-*"):
            left.unlink()  # of the SIGKILL; the next start would do it
    for port in (listen, first, second):
        wait_refused(port)


def wait_refused(port: int) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return
    pytest.fail(f"somebody still listens on {port}")
