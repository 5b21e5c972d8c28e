"""The queue for room beside what else a worker does: the cache, sessions, hashes, tunnels."""

from __future__ import annotations

import contextlib

from minato.config.affinity import StickyConfig
from minato.config.model import BalancerKind, CacheConfig, QueueConfig
from minato.shared.board import Counter
from tests.net.gate import Gate, wait_for_active
from tests.net.proxy import OriginMaker, ProxyMaker, hello
from tests.net.queue_support import asking, capped, nobody_waits, poll_gates, waiting
from tests.system.harness import Client, OriginConnection, request_bytes, wait_until


def test_collapsed_requests_wait_with_their_leader(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    cache = CacheConfig(enabled=True)
    here = capped(proxy, origin(gate), cache=cache)
    with asking(here, b"/held", b"/page", b"/page", b"/page") as (_, *same):
        assert waiting(here) == 1  # the leader
        gate.answer(hello())
        gate.answer(hello(b"page", b"Cache-Control: max-age=60"))
        assert [client.receive().body for client in same] == [b"page"] * 3
        assert gate.is_quiet()
    assert nobody_waits(here)


def test_a_leader_whose_client_leaves_keeps_its_place_for_the_others(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = capped(proxy, origin(gate), cache=CacheConfig(enabled=True))
    with asking(here, b"/held", b"/page", b"/page") as (_, leading, following):
        leading.reset()
        wait_for_active(here, 3)
        assert waiting(here) == 1
        gate.answer(hello())
        gate.answer(hello(b"page", b"Cache-Control: max-age=60"))
        assert following.receive().body == b"page"


def test_followers_of_a_leader_that_waited_in_vain_do_not_wait_again(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = capped(proxy, origin(gate), queue=QueueConfig(100, 0.5), cache=CacheConfig(enabled=True))
    with asking(here, b"/held"), contextlib.ExitStack() as stack:
        same = [stack.enter_context(here.client()) for _ in range(6)]
        wait_until(lambda: here.counted(Counter.CONNECTIONS_ACTIVE) == 7, "all to be accepted")
        with here.held():  # so that all begin in the same moment, and have waited long enough in the same
            for client in same:
                client.send(request_bytes(target=b"/page"))
        assert [client.receive().status for client in same] == [503] * 6
        assert (here.counted(Counter.REQUESTS_QUEUED), here.counted(Counter.QUEUE_TIMEOUTS)) == (1, 6)
        gate.answer(hello())
    assert nobody_waits(here)


def test_a_stale_answer_is_better_than_none(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate), queue=QueueConfig(100, 0.2), cache=CacheConfig(enabled=True))
    with here.client() as client:
        client.send(request_bytes(target=b"/page"))
        gate.answer(hello(b"stored", b"Cache-Control: max-age=0, stale-if-error=600", b'ETag: "1"'))
        assert client.receive().body == b"stored"
        with asking(here, b"/held"):
            assert client.request(target=b"/page").body == b"stored"
            gate.answer(hello())


def cookie_of(gate: Gate, client: Client) -> bytes:
    """Begin a session at the gate's origin and return its cookie."""
    client.send(request_bytes())
    gate.answer(hello())
    return (client.receive().get(b"set-cookie") or b"").partition(b";")[0]


def test_sessions_whose_upstream_is_full_go_to_one_with_room_and_else_wait(
    origin: OriginMaker, proxy: ProxyMaker
) -> None:
    home, other = Gate(), Gate()
    here = capped(proxy, origin(home), origin(other), service={"sticky": StickyConfig("srv")})
    with here.client() as first:
        cookie = cookie_of(home, first)
        clients = [here.client() for _ in range(4)]
        for count, client in enumerate(clients, 1):
            client.send(request_bytes(target=b"/%d" % count, fields=[(b"cookie", cookie)]))
            wait_for_active(here, count)
        assert waiting(here) == 2
        assert home.answer(hello(b"1")).target == b"/1"
        assert home.answer(hello(b"3")).target == b"/3"
        assert other.answer(hello(b"2")).target == b"/2"
        answered = [client.receive() for client in clients[:3]]
        assert [response.body for response in answered] == [b"1", b"2", b"3"]
        assert not any(response.get(b"set-cookie") for response in answered)
        gate, connection = wait_until(lambda: poll_gates(home, other), "the last one")
        connection.send(hello(b"4"))
        gate.done(connection)
        assert clients[3].receive().body == b"4"
        for client in clients:
            client.close()


def test_sessions_do_not_overtake_who_waits(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate), service={"sticky": StickyConfig("srv")})
    with here.client() as first:
        cookie = cookie_of(gate, first)
        wire = request_bytes(target=b"/session", fields=[(b"cookie", cookie)])
        first.send(wire * 3)
        wait_for_active(here, 1)
        with asking(here, b"/waits") as (patient,):
            assert [gate.answer(hello()).target for _ in range(3)] == [b"/session", b"/waits", b"/session"]
            assert patient.receive().status == 200
            gate.answer(hello())


def test_what_is_hashed_waits_and_goes_where_there_is_room(origin: OriginMaker, proxy: ProxyMaker) -> None:
    one, two = Gate(), Gate()
    service = {"balancer": BalancerKind.CONSISTENT_HASH}
    here = capped(proxy, origin(one), origin(two), service=service)
    with asking(here, b"/same", b"/same", b"/same") as clients:
        both = [one.next(), two.next()]  # the first where it belongs, the second where there was room
        assert waiting(here) == 1
        for gate, (connection, _) in zip((one, two), both, strict=True):
            connection.send(hello(b"x"))
            gate.done(connection)
        third = wait_until(lambda: poll_gates(one, two), "the third one")
        third[1].send(hello(b"x"))
        third[0].done(third[1])
        assert [client.receive().body for client in clients] == [b"x"] * 3


def test_a_tunnel_takes_room_until_its_end(origin: OriginMaker, proxy: ProxyMaker) -> None:
    def switch(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            if request.get(b"upgrade"):
                connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
                connection.wait_closed()
                return
            connection.send(hello(request.target))

    here = capped(proxy, origin(switch))
    with here.client() as tunnel, here.client() as client:
        tunnel.send(request_bytes(fields=[(b"Connection", b"upgrade"), (b"Upgrade", b"x")]))
        assert tunnel.receive_head().status == 101
        client.send(request_bytes(target=b"/waits"))
        wait_until(lambda: waiting(here) == 1, "the request to wait")
        tunnel.close()
        assert client.receive().body == b"/waits"
