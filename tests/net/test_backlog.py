"""A client that has much to be done at once waits its turn: others notice little, and it loses nothing."""

from __future__ import annotations

import os
import threading

import pytest

from minato.net.backlog import Backlog
from minato.net.downstream import Downstream
from minato.net.loop import Loop
from minato.net.runtime import UpstreamRuntime
from minato.net.uplink import Uplink
from minato.net.upstream import UpstreamConnection
from minato.shared.board import Counter
from tests.net.proxy import OriginMaker, ProxyMaker, hello
from tests.system.harness import request_bytes, wait_until
from tests.system.harness.origin import respond_always

EXPRESS = pytest.mark.parametrize("express", [True, False])
NOWHERE = b"GET / HTTP/1.1\r\nHost: nowhere\r\n\r\n"  # answered here, with 404
FLOOD = 300
LONG = b"GET / HTTP/1.1\r\nHost: nowhere\r\nRange: bytes=0-%b\r\n\r\n" % (b",5-9" * 5000)


class Some:
    """Somebody who has things to do and notes when he did."""

    def __init__(self, backlog: Backlog, told: list[str], name: str, times: int) -> None:
        self.backlog, self.told, self.name, self.times = backlog, told, name, times

    def go_on(self) -> None:
        self.told.append(self.name)
        self.times -= 1
        if self.times:
            self.backlog.put_off(self)


def test_each_turn_one_goes_on_and_nobody_twice_before_the_others(loop: Loop) -> None:
    backlog, told = Backlog(loop), list[str]()
    first, second = Some(backlog, told, "first", 2), Some(backlog, told, "second", 2)
    for one in (first, second, first):
        backlog.put_off(one)
    assert backlog.holds(first) and backlog.holds(second)
    seen = []
    for _ in range(4):
        loop.turn(1.0)
        seen.append(list(told))
    order = ["first", "second", "first", "second"]
    assert seen == [order[:1], order[:2], order[:3], order]
    assert not backlog.holds(first) and not backlog.holds(second)


def test_an_empty_backlog_holds_no_descriptor_and_wakes_nobody(loop: Loop) -> None:
    backlog, told = Backlog(loop), list[str]()
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        backlog.put_off(Some(backlog, told, "one", 1))
        loop.turn(1.0)
    assert told == ["one"] * 3
    assert os.listdir("/proc/self/fd") == before
    woken: list[bool] = []
    timer = loop.timer(lambda: woken.append(True))
    timer.set(0.05)
    loop.turn(1.0)
    assert woken == [True]  # the turn waited for it


def test_without_a_descriptor_what_was_put_off_is_done_all_the_same(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "eventfd", fail)
    backlog, told = Backlog(loop), list[str]()
    backlog.put_off(Some(backlog, told, "one", 3))
    backlog.put_off(Some(backlog, told, "two", 1))
    loop.turn(1.0)
    assert sorted(told) == ["one"] * 3 + ["two"]


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many of the others' requests had been answered when each request to an upstream was sent."""
    counts: list[int] = []
    send = Uplink._send_request

    def note(uplink: Uplink, connection: UpstreamConnection, upstream: UpstreamRuntime) -> None:
        row = uplink._context.row
        counts.append(row.get(Counter.RESPONSES_4XX))
        send(uplink, connection, upstream)

    monkeypatch.setattr(Uplink, "_send_request", note)
    return counts


@EXPRESS
def test_a_flood_of_pipelined_requests_does_not_come_before_all_others(
    origin: OriginMaker, proxy: ProxyMaker, answered: list[int], express: bool
) -> None:
    here = proxy(origin(respond_always(hello())), express=express)
    with here.client() as flooder, here.client() as other:
        assert other.request().body == b"hello"
        with here.held():
            flooder.send(NOWHERE * FLOOD)
            other.send(request_bytes())
        assert other.receive().body == b"hello"
        assert answered[-1] <= 16
        assert {flooder.receive().status for _ in range(FLOOD)} == {404}
        assert flooder.request().status == 200


@EXPRESS
def test_long_heads_of_many_clients_do_not_come_before_all_others(
    origin: OriginMaker, proxy: ProxyMaker, answered: list[int], express: bool
) -> None:
    here = proxy(origin(respond_always(hello())), express=express)
    crowd = [here.client() for _ in range(30)]
    try:
        with here.client() as other:
            assert other.request().body == b"hello"
            for client in crowd:
                client.send(LONG[:-1])
            held = 30 * (len(LONG) - 1)
            heads = here.server._context.partial_heads
            wait_until(lambda: here.call(lambda: heads.held_bytes) == held, "all but the last byte")
            here.call(lambda: None)
            with here.held():
                for client in crowd:
                    client.send(LONG[-1:])
                other.send(request_bytes())
            assert other.receive().body == b"hello"
            assert answered[-1] <= 5
        assert {client.receive().status for client in crowd} == {404}
    finally:
        for client in crowd:
            client.close()


@EXPRESS
@pytest.mark.parametrize("wire", [NOWHERE * FLOOD, LONG * 3], ids=["many", "long"])
def test_who_ends_behind_what_was_put_off_gets_all_answers(
    origin: OriginMaker, proxy: ProxyMaker, express: bool, wire: bytes
) -> None:
    here = proxy(origin(respond_always(hello())), express=express)
    with here.client() as client:
        with here.held():
            client.send(wire)
            client.half_close()
        assert [client.receive().status for _ in range(wire.count(b"\r\n\r\n"))] == [404] * wire.count(b"\r\n\r\n")
        assert client.is_closed()


@EXPRESS
def test_who_leaves_while_others_wait_is_let_go_and_those_go_on(
    origin: OriginMaker, proxy: ProxyMaker, express: bool
) -> None:
    here = proxy(origin(respond_always(hello())), express=express)
    with here.client() as leaver, here.client() as stayer:
        with here.held():
            for client in (leaver, stayer):
                client.send(NOWHERE * FLOOD)
            leaver.reset()
        assert {stayer.receive().status for _ in range(FLOOD)} == {404}
    wait_until(lambda: here.counted(Counter.CONNECTIONS_ACTIVE) == 0, "the end of both")


@EXPRESS
def test_a_worker_that_closes_what_is_idle_serves_what_was_put_off(
    origin: OriginMaker, proxy: ProxyMaker, express: bool
) -> None:
    here = proxy(origin(respond_always(hello())), express=express)
    with here.client() as client:
        with here.held():
            client.send(NOWHERE * FLOOD)
            closing = threading.Thread(target=lambda: [here.call(here.server.close_idle) for _ in range(5)])
            closing.start()
        closing.join()
        assert {client.receive().status for _ in range(FLOOD)} == {404}


@pytest.mark.parametrize(("sent", "status"), [(LONG, 404), (LONG[:-2], 408)])
def test_a_deadline_that_finds_a_head_in_the_backlog_looks_whether_it_is_whole(
    origin: OriginMaker, proxy: ProxyMaker, monkeypatch: pytest.MonkeyPatch, sent: bytes, status: int
) -> None:
    monkeypatch.setattr(Backlog, "_on_turn", lambda *_: None)
    here = proxy(origin(respond_always(hello())))

    def expire() -> None:
        (client,) = here.server._clients
        assert isinstance(client, Downstream)
        client._on_deadline()

    with here.client() as client:
        client.send(sent)
        wait_until(lambda: here.call(lambda: here.server._context.partial_heads.held_bytes) == len(sent), "all of it")
        here.call(expire)
        assert client.receive().status == status
        monkeypatch.undo()
