"""Issue line 1, the demo: the shipped config as it is, its two origins, and that Ctrl-C ends all of it."""

from __future__ import annotations

import fcntl
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .conftest import Instances
from .harness import Client, Minato, fetch, request_bytes, wait_until
from .harness.proxy import REPO, run_minato

# Its ports are given: in one process of the tests, so that none waits for another.
pytestmark = pytest.mark.xdist_group("demo")

PORTS = (8080, 9001, 9002)


@pytest.fixture
def ports() -> Iterator[None]:
    """The ports of the shipped config are given, so the tests of all pytest processes take turns."""
    with (Path(tempfile.gettempdir()) / "minato-demo-ports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def demo(ports: None, instances: Instances, tmp_path: Path) -> Iterator[Minato]:
    """The demo with the shipped config; its ports must be free, and the test says so if they are not."""
    busy = [port for port in PORTS if not _is_free(port)]
    assert not busy, f"the demo needs the ports of the shipped config; in use: {busy}"
    text = (REPO / "config.yaml").read_text()
    instance = instances.adopt(Minato(tmp_path, text, workers=4, command="demo"))
    instance.port = 8080
    yield instance.wait_ready()


def _is_free(port: int) -> bool:
    try:
        Client(port).close()
    except ConnectionRefusedError:
        return True
    return False


def ask(path: bytes = b"/") -> bytes:
    response = fetch(8080, path, host=b"localhost:8080")
    assert response.status == 200
    return response.body


def test_both_origins_answer_and_say_who_they_are(demo: Minato) -> None:
    # Responses may be stored: a query of its own makes each a new one.
    pages = [ask(b"/?%d" % number) for number in range(12)]
    assert any(b"9001" in page for page in pages) and any(b"9002" in page for page in pages)


def test_events_stream(demo: Minato) -> None:
    with Client(8080) as client:
        client.send(request_bytes(target=b"/events", host=b"localhost"))
        head = client.receive_head()
        assert (head.get(b"content-type") or b"").startswith(b"text/event-stream")
        pieces = client.pieces(head)
        received = b""
        while received.count(b"data:") < 2:
            received += next(pieces)


def test_slow_path_is_slow_and_cacheable_path_is_cached(demo: Minato) -> None:
    began_s = time.monotonic()
    ask(b"/slow")
    assert time.monotonic() - began_s > 1
    # Four workers, each with a cache of its own: one connection stays with one of them.
    with Client(8080) as client:
        first, second = (client.request(target=b"/cached", host=b"localhost") for _ in range(2))
    assert first.body == second.body and b"hit" in (second.get(b"cache-status") or b"")


def test_what_to_try_is_printed(demo: Minato) -> None:
    printed = wait_until(demo.stdout_path.read_text, "the hints")  # right after the ready line
    assert "curl" in printed and "http://localhost:8080/" in printed


def test_interrupt_ends_all_of_it(demo: Minato) -> None:
    demo.remember_children()
    demo.signal(signal.SIGINT)
    assert demo.wait_exit(10) == 0
    wait_until(lambda: demo.survivors() == [], "every process to end")
    assert all(_is_free(port) for port in PORTS)


def test_killed_demo_leaves_no_origins(demo: Minato, instances: Instances) -> None:
    demo.remember_children()
    psutil.Process(demo.pid).kill()
    demo.wait_exit(5)
    # Its workers wait for the next one, in vain.
    wait_until(lambda: demo.survivors() == [], "every process to end", 20)
    wait_until(lambda: all(_is_free(port) for port in PORTS), "the ports to be free")
    again = instances.adopt(Minato(demo.directory, (REPO / "config.yaml").read_text(), command="demo"))
    again.wait_ready()


def test_port_that_is_taken_is_exit_1_with_a_clear_line(demo: Minato) -> None:
    result = run_minato("demo", "--workers", "1")
    assert result.returncode == 1
    assert "in use" in result.stderr and "Traceback" not in result.stderr
