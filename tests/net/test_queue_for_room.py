"""Upstreams with caps: what is too much for them waits in the order it came, for so long and no longer."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from minato.config.model import Limits, QueueConfig, Timeouts
from minato.net import room
from minato.shared.board import Counter
from tests.net.gate import Gate, wait_for_active
from tests.net.proxy import OriginMaker, ProxyMaker, echo_target, hello, refused_port
from tests.net.queue_support import asking, capped, nobody_waits, waiting
from tests.system.harness import OriginConnection, request_bytes, wait_until
from tests.system.harness.wire import Truncated


@pytest.fixture(params=[True, False], ids=["express", "general"])
def express(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_what_is_too_much_waits_and_is_served_in_its_order(
    express: bool, gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = capped(proxy, origin(gate), express=express)
    targets = [b"/%d" % number for number in range(8)]
    with asking(here, *targets) as clients:
        connection, request = gate.next()
        assert gate.is_quiet()
        assert waiting(here) == 7
        connection.send(hello(request.target))
        gate.done(connection)
        for target in targets[1:]:
            assert gate.answer(hello(target)).target == target
        assert [client.receive().body for client in clients] == targets
    assert here.counted(Counter.REQUESTS_QUEUED) == 7
    assert here.counted(Counter.QUEUE_TIMEOUTS) == here.counted(Counter.QUEUE_OVERFLOWS) == 0
    assert nobody_waits(here)


@pytest.mark.parametrize("cap", [1, 2, 5])
def test_an_upstream_never_has_more_than_its_cap_and_always_as_many(
    cap: int, gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = capped(proxy, origin(gate), cap=cap)
    with asking(here, *[b"/%d" % number for number in range(15)]) as clients:
        for left in range(15, 0, -1):
            held = [gate.next() for _ in range(min(left, cap))]
            assert here.board.active(0) <= cap
            assert gate.asked.empty()
            for other in held[1:]:
                gate.asked.put(other)
            connection, request = held[0]
            connection.send(hello(request.target))
            gate.done(connection)
        assert {client.receive().status for client in clients} == {200}


def test_who_waits_has_its_turn_at_once_when_room_is_there(
    origin: OriginMaker, proxy: ProxyMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the next poll only: a fast upstream with a cap would be made slow by it."""
    monkeypatch.setattr(room, "_POLL_S", 1000.0)
    here = capped(proxy, origin(echo_target))
    clients = [here.client() for _ in range(20)]
    for client in clients:
        client.send(request_bytes(target=b"/x") * 10)
    assert [client.receive().body for client in clients for _ in range(10)] == [b"/x"] * 200
    for client in clients:
        client.close()


def test_after_its_timeout_it_gets_a_503_that_says_when_to_come_back(
    express: bool, gate: Gate, origin: OriginMaker, proxy: ProxyMaker, caplog: pytest.LogCaptureFixture
) -> None:
    here = capped(proxy, origin(gate), queue=QueueConfig(100, 0.3), express=express)
    with asking(here, b"/held") as (holding,), here.client() as late:
        began_s = time.monotonic()
        response = late.request(target=b"/late")
        assert (response.status, response.get(b"retry-after")) == (503, b"1")
        assert 0.28 <= time.monotonic() - began_s < 5
        assert not response.says_close()
        gate.answer(hello(b"held"))
        assert holding.receive().body == b"held"
        late.send(request_bytes(target=b"/again"))
        assert gate.answer(hello(b"again")).target == b"/again"
        assert late.receive().body == b"again"
    assert here.counted(Counter.QUEUE_TIMEOUTS) == 1
    assert "no room at an upstream of service s within 0.3 s; the request gets a 503" in caplog.text


def test_a_full_queue_is_a_503_at_once_and_said_once(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker, caplog: pytest.LogCaptureFixture
) -> None:
    here = capped(proxy, origin(gate), queue=QueueConfig(2, 10))
    with asking(here, b"/0", b"/1", b"/2"), here.client() as client:
        for _ in range(3):
            response = client.request()
            assert (response.status, response.get(b"retry-after")) == (503, b"1")
        assert waiting(here) == 2
        for _ in range(3):
            gate.answer(hello())
    assert here.counted(Counter.QUEUE_OVERFLOWS) == 3
    assert caplog.text.count("2 requests wait for room already") == 1


def test_without_a_queue_full_is_a_503_at_once(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate), queue=QueueConfig(0, 10))
    with asking(here, b"/held"), here.client() as client:
        assert client.request().status == 503
        gate.answer(hello())


def test_limits_are_the_default_and_an_upstream_may_lift_them(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    limits = Limits(upstream_connections=1)
    by_default = proxy(origin(gate), limits=limits)
    with asking(by_default, b"/1", b"/2") as clients:
        gate.answer(hello(b"1"))
        gate.answer(hello(b"2"))
        assert [client.receive().body for client in clients] == [b"1", b"2"]
    assert by_default.counted(Counter.REQUESTS_QUEUED) == 1
    lifted = proxy(origin(gate), limits=limits, upstream={"max_connections": 0})
    with asking(lifted, b"/1", b"/2"):
        both = [gate.next(), gate.next()]
        for connection, _ in both:
            connection.send(hello())
            gate.done(connection)


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_client_that_leaves_leaves_the_queue(ending: str, gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate))
    with asking(here, b"/held", b"/gone", b"/stays") as (holding, leaving, staying):
        leaving.close() if ending == "close" else leaving.reset()
        wait_until(lambda: waiting(here) == 1, "the client to be gone from the queue")
        assert here.board.active(0) == 1
        gate.answer(hello(b"held"))
        assert holding.receive().body == b"held"
        assert gate.answer(hello(b"stays")).target == b"/stays"
        assert staying.receive().body == b"stays"
    assert nobody_waits(here)


def test_nobody_healthy_any_more_is_a_503_for_all_who_wait(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate))
    with asking(here, b"/held", b"/1", b"/2") as (holding, *others):
        here.board.set_health(0, False)
        assert [client.receive().status for client in others] == [503, 503]
        gate.answer(hello(b"held"))
        assert holding.receive().body == b"held"
    assert here.counted(Counter.QUEUE_TIMEOUTS) == 0


def test_an_upstream_that_comes_back_takes_who_waits(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate), origin(echo_target))
    here.board.set_health(1, False)
    with asking(here, b"/held", b"/waits") as (_, client):
        assert waiting(here) == 1
        here.board.set_health(1, True)
        assert client.receive().body == b"/waits"
        gate.answer(hello())


@pytest.mark.parametrize("size", [100, 60_000, 400_000])
def test_a_body_waits_with_its_request_and_is_not_read_beyond_bounds(
    size: int, express: bool, gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = capped(proxy, origin(gate), express=express)
    body = bytes(range(250)) * (size // 250)
    with asking(here, b"/held") as (_,), here.client() as client:
        client.sock.settimeout(0.3)
        wire = request_bytes(b"POST", b"/upload", body=body)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < len(wire):
                sent += client.sock.send(wire[sent : sent + 16_384])
        wait_until(lambda: waiting(here) == 1, "the upload to wait")
        (downstream,) = [
            one for one in here.server._clients if one._exchange is not None and one._exchange.head.method == b"POST"
        ]
        time.sleep(0.1)
        assert here.call(lambda: downstream._codec.buffered_bytes) <= 2 * 65_536 + 32_768
        client.sock.settimeout(10)
        gate.answer(hello(b"held"))
        client.send(wire[sent:])
        assert gate.answer(hello(b"taken")).body == body
        assert client.receive().body == b"taken"


def test_a_body_that_trickles_while_its_request_waits_is_not_blamed(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = capped(proxy, origin(gate), timeouts=Timeouts(client_body_s=0.5))
    wire = request_bytes(b"POST", b"/upload", body=b"x" * 100)
    with asking(here, b"/held"), here.client() as client:
        client.send(wire[:-50])
        time.sleep(0.8)  # longer than it may pause: but it is not the client that is waited for
        assert waiting(here) == 1
        gate.answer(hello())
        client.send(wire[-50:])
        assert gate.answer(hello(b"taken")).body == b"x" * 100
        assert client.receive().body == b"taken"


def test_pipelined_requests_wait_one_behind_the_other(
    express: bool, gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = capped(proxy, origin(gate), express=express)
    with asking(here, b"/held"), here.client() as client:
        client.send(b"".join(request_bytes(target=b"/%d" % number) for number in range(5)))
        wait_until(lambda: waiting(here) == 1, "the first of them to wait")
        gate.answer(hello())
        for number in range(5):
            gate.answer(hello(b"%d" % number))
        assert [client.receive().body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


def test_new_ones_do_not_overtake_who_waits(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    """A kept-alive client that asks again as soon as it is answered does not keep the room to itself."""
    here = capped(proxy, origin(gate))
    with here.client() as busy:
        busy.send(request_bytes(target=b"/busy") * 4)
        wait_for_active(here, 1)
        with asking(here, b"/waits") as (patient,):
            order = [gate.answer(hello()).target for _ in range(3)]
            assert order == [b"/busy", b"/waits", b"/busy"]
            assert patient.receive().status == 200
            gate.answer(hello())
            gate.answer(hello())


def test_a_retry_goes_before_all_who_wait_and_holds_nobody_up(origin: OriginMaker, proxy: ProxyMaker) -> None:
    steady, failing = Gate(), Gate()
    here = capped(proxy, origin(steady), origin(failing))
    with asking(here, b"/0", b"/1", b"/2", b"/3") as clients:
        connection, request = failing.next()
        assert request.target == b"/1"
        connection.reset()
        failing.done(connection, stays=False)
        # The one that failed has room again. The retry may not go there, so who stands behind it does.
        assert failing.answer(hello(b"2")).target == b"/2"
        assert failing.answer(hello(b"3")).target == b"/3"
        assert waiting(here) == 1
        with asking(here, b"/4") as (late,):
            assert failing.next()[1].target == b"/4"
            with asking(here, b"/5") as (last,):
                steady.answer(hello(b"0"))
                assert steady.answer(hello(b"1")).target == b"/1"
                assert steady.answer(hello(b"5")).target == b"/5"
                assert last.receive().body == b"5"
            late.close()
        assert [client.receive().body for client in clients] == [b"0", b"1", b"2", b"3"]
    wait_for_active(here, 0)  # or the one that left would be tried again when its upstream closes
    for connection in failing.pending:
        failing.done(connection, stays=False)
    assert here.counted(Counter.RETRIES) == 1


def test_a_stale_connection_of_the_only_upstream_is_replaced_within_the_cap(
    origin: OriginMaker, proxy: ProxyMaker
) -> None:
    def close_at_second(connection: OriginConnection) -> None:
        for number in range(2):
            request = connection.read_request()
            if request is None or number:
                return
            connection.send(hello(request.target))

    here = capped(proxy, origin(close_at_second))
    with here.client() as client:
        assert [client.request(target=b"/%d" % number).status for number in range(6)] == [200] * 6
    assert here.board.active(0) == 0


def test_refused_connections_free_their_room(proxy: ProxyMaker) -> None:
    with refused_port() as dead:
        here = capped(proxy, dead)
        clients = [here.client() for _ in range(10)]
        for client in clients:
            client.send(request_bytes())
        assert [client.receive().status for client in clients] == [502] * 10
        for client in clients:
            client.close()


def test_a_drain_serves_who_waits(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate))
    with asking(here, b"/0", b"/1", b"/2") as clients:
        here.drain()
        for number in range(3):
            gate.answer(hello(b"%d" % number))
        responses = [client.receive() for client in clients]
        assert [response.body for response in responses] == [b"0", b"1", b"2"]
        assert all(response.says_close() for response in responses)
        assert all(client.is_closed() for client in clients)
    assert here.drained.wait(5)


def test_the_drain_deadline_ends_who_still_waits(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate))
    with asking(here, b"/0", b"/1"):
        here.drain(0.2)
        assert here.drained.wait(5)
        assert nobody_waits(here)


def test_a_bug_in_one_turn_is_none_for_those_behind_it(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = capped(proxy, origin(gate))
    with asking(here, b"/held", b"/bug", b"/fine") as (_, broken, fine):
        (service,) = here.server._context.services
        assert service.room is not None
        first = here.call(lambda: service.room.queue.first(()))
        monkeypatch.setattr(type(first), "on_turn", _fail_for(type(first).on_turn, b"/bug"))
        gate.answer(hello())
        with pytest.raises((Truncated, ConnectionError)):
            broken.receive()
        assert gate.answer(hello(b"fine")).target == b"/fine"
        assert fine.receive().body == b"fine"
    assert nobody_waits(here)


def _fail_for(on_turn: Any, target: bytes) -> Any:
    def fail(self: Any) -> None:
        if self.head.target == target:
            raise ZeroDivisionError
        on_turn(self)

    return fail


def test_services_without_caps_have_no_room_to_look_after(origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(echo_target))
    with here.client() as client:
        assert client.request(target=b"/x").body == b"/x"
    (service,) = here.server._context.services
    assert service.room is None
    assert service.only is service.upstreams[0]
    assert not service.only.is_watched
