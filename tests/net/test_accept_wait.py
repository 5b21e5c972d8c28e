"""The load signal: a long wait is overload only when it lasts; the wait is measured by the kernel."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from minato.config.model import Limits
from minato.net import server as server_module
from minato.net.accept_wait import AcceptWait, measure_wait_s
from minato.shared.board import Counter
from tests.net.proxy import OriginMaker, ProxyMaker, hello
from tests.system.harness import Client, request_bytes
from tests.system.harness.origin import respond_always


def test_one_long_wait_is_a_hiccup() -> None:
    wait = AcceptWait(5.0)
    wait.note(60.0, 100.0, 0.05)
    assert not wait.is_too_long
    for number in range(100):
        wait.note(0.0, 100.0 + number / 10, 0.1)
        assert not wait.is_too_long


def test_waits_that_are_too_long_for_a_second_are_overload_until_one_is_short() -> None:
    wait = AcceptWait(5.0)
    for number in range(11):
        assert not wait.is_too_long
        wait.note(5.5, 100.0 + number / 10, 0.1)
    assert wait.is_too_long
    wait.note(6.0, 102.0, 1.0)
    assert wait.is_too_long
    wait.note(4.9, 102.1, 0.1)
    assert not wait.is_too_long


def test_two_hiccups_far_apart_are_no_overload() -> None:
    wait = AcceptWait(5.0)
    wait.note(60.0, 100.0, 0.05)
    wait.note(60.0, 200.0, 100.0)
    assert not wait.is_too_long


def test_a_wait_alternating_with_short_ones_is_no_overload() -> None:
    wait = AcceptWait(5.0)
    for number in range(1000):
        wait.note(9.0 if number % 4 else 0.1, number / 4, 0.25)
        assert not wait.is_too_long


def test_the_kernel_tells_how_long_a_connection_has_waited() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            for _ in range(4):  # whoever drips has waited no less
                time.sleep(0.1)
                client.send(b"x")
            near, _ = listener.accept()
            with near:
                assert 0.35 <= measure_wait_s(near) < 5.0
        began_s = time.monotonic()
        with socket.create_connection(listener.getsockname()):
            near, _ = listener.accept()
            with near:
                assert measure_wait_s(near) < time.monotonic() - began_s + 0.1
    left, right = socket.socketpair()
    with left, right:
        assert measure_wait_s(left) == 0.0


class Counting(AcceptWait):
    looks = 0

    def note(self, waited_s: float, now_s: float, gap_s: float) -> None:
        self.looks += 1
        super().note(waited_s, now_s, gap_s)


def test_a_look_is_not_made_for_each_connection() -> None:
    wait = Counting(5.0)
    with socket.socket() as sock:
        for _ in range(100):
            wait.look(sock, 100.0)
        wait.look(sock, 100.06)
        assert wait.looks == 2
        off = Counting(0.0)
        off.look(sock, 100.0)
        assert off.looks == 0


def test_under_overload_new_clients_get_a_503_and_old_ones_their_answers(
    origin: OriginMaker, proxy: ProxyMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A loop that comes to its listener every half second only, for whom everybody waits that long."""
    made: list[AcceptWait] = []

    def make(limit_s: float) -> AcceptWait:
        made.append(AcceptWait(limit_s))
        return made[-1]

    monkeypatch.setattr(server_module, "AcceptWait", make)
    here = proxy(origin(respond_always(hello())), limits=Limits(accept_wait_s=0.2))
    with here.client() as old:
        old.send(request_bytes())
        assert old.receive().body == b"hello"
        statuses = [status_after_wait(here.held, here.client)]
        while statuses[-1] == 200 and len(statuses) < 20:  # four, unless the machine lets a second pass in between
            statuses.append(status_after_wait(here.held, here.client))
        assert statuses[0] == 200 and statuses[-1] == 503
        assert made[0].is_too_long
        old.send(request_bytes())
        assert old.receive().body == b"hello"
    while statuses[-1] == 503:  # until somebody has not waited, mostly the first
        assert len(statuses) < 30
        with here.client() as client:
            client.send(request_bytes())
            statuses.append(client.receive().status)
    assert len([record for record in caplog.records if "limits.accept_wait" in record.getMessage()]) == 1
    assert here.counted(Counter.RESPONSES_5XX) == statuses.count(503)


def status_after_wait(held: Callable[..., object], connect: Callable[[], Client]) -> int:
    with held():  # type: ignore[attr-defined]
        client = connect()
        client.send(request_bytes())
        threading.Event().wait(0.4)
    with client:
        response = client.receive()
        assert response.status == 200 or (response.get(b"retry-after"), response.says_close()) == (b"1", True)
        return int(response.status)
