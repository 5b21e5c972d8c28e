"""A whole server in one thread: reuse, order, clients that leave, tunnels, draining."""

from __future__ import annotations

import threading

import pytest

from minato.config.model import CacheConfig
from minato.shared.board import Counter
from tests.net.proxy import OriginMaker, ProxyMaker, echo_target, hello, never_answer, refused_port
from tests.system.harness import Client, OriginConnection, request_bytes
from tests.system.harness.origin import respond_always, respond_with

GET = request_bytes()

# -- connections and their order


def test_both_sides_keep_their_connection(origin: OriginMaker, proxy: ProxyMaker) -> None:
    there = origin(echo_target)
    here = proxy(there)
    with here.client() as client:
        for target in (b"/1", b"/2", b"/3"):
            assert client.request(target=target).body == target
    assert (len(there.connections), len(there.requests)) == (1, 3)
    assert here.counted(Counter.CONNECTIONS_ACCEPTED) == 1
    assert here.counted(Counter.RESPONSES_2XX) == 3


def test_pipelined_requests_are_answered_in_order(origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(echo_target))
    with here.client() as client:
        targets = [b"/%d" % number for number in range(40)]
        client.send(b"".join(request_bytes(target=target) for target in targets))
        assert [client.receive().body for _ in targets] == targets


def test_requests_behind_bodies_in_one_packet_are_told_apart(origin: OriginMaker, proxy: ProxyMaker) -> None:
    there = origin(echo_target)
    chunked = (
        b"POST /2 HTTP/1.1\r\nHost: test.local\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"
    )
    wire = request_bytes(b"POST", b"/1", body=b"GET /evil HTTP/1.1\r\n\r\n") + chunked + request_bytes(target=b"/3")
    here = proxy(there)
    for size in (len(wire), 1):
        with here.client() as client:
            client.send_in_pieces(wire, size)
            assert [client.receive().body for _ in range(3)] == [b"/1", b"/2", b"/3"]
    assert [request.body for request in there.requests] == [b"GET /evil HTTP/1.1\r\n\r\n", b"abc", b""] * 2


def test_an_idle_upstream_connection_that_closed_is_not_used(origin: OriginMaker, proxy: ProxyMaker) -> None:
    there = origin(respond_with(hello(b"only one")))
    here = proxy(there)
    with here.client() as client:
        for number in range(3):
            assert client.request().body == b"only one"
            there.wait_for(lambda number=number: there.connections[number].closed.is_set(), "its end")
    assert len(there.connections) == 3


def test_a_pooled_connection_that_closes_under_the_request_is_forgiven_once(
    origin: OriginMaker, proxy: ProxyMaker
) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(hello(b"%d" % connection.number))
        connection.read_request()  # and closes without an answer

    there = origin(script)
    here = proxy(there, retries=0)
    with here.client() as client:
        assert [client.request().body for _ in range(3)] == [b"0", b"1", b"2"]


def test_a_large_body_passes_unchanged_both_ways(origin: OriginMaker, proxy: ProxyMaker) -> None:
    body = bytes(range(256)) * 20_000

    def script(connection: OriginConnection) -> None:
        request = connection.read_request()
        assert request is not None
        connection.send(hello(request.body))

    with proxy(origin(script)).client() as client:
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.append(client.receive().body))
        reader.start()
        client.send(request_bytes(b"PUT", body=body))
        reader.join(20)
        assert received == [body]


# -- clients that leave


def test_a_client_that_leaves_ends_the_upstream_exchange(origin: OriginMaker, proxy: ProxyMaker) -> None:
    noticed = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        if connection.wait_closed(5.0):
            noticed.set()

    there = origin(script)
    here = proxy(there)
    for leave in (Client.close, Client.reset):
        noticed.clear()
        wanted = len(there.requests) + 1
        client = here.client()
        client.send(GET)
        there.wait_requests(wanted)
        leave(client)
        assert noticed.wait(2.0), leave


def test_a_client_that_leaves_while_it_is_answered_ends_the_stream(origin: OriginMaker, proxy: ProxyMaker) -> None:
    noticed = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n")
        if connection.wait_closed(5.0):
            noticed.set()

    with proxy(origin(script)).client() as client:
        client.send(GET)
        assert next(client.pieces(client.receive_head())) == b"event"
    assert noticed.wait(2.0)


def test_a_client_that_leaves_in_its_upload_ends_the_exchange(origin: OriginMaker, proxy: ProxyMaker) -> None:
    there = origin(never_answer)
    with proxy(there).client() as client:
        client.send(request_bytes(b"POST", body=b"x" * 100)[:-50])
        there.wait_requests(1)
    assert there.connections[0].saw_end.wait(5.0)


def test_a_half_closed_client_gets_its_response(origin: OriginMaker, proxy: ProxyMaker) -> None:
    answer = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        answer.wait(5.0)
        connection.send(hello())

    there = origin(script)
    with proxy(there).client() as client:
        client.send(GET)
        there.wait_requests(1)
        client.half_close()
        answer.set()
        assert client.receive().body == b"hello"
        assert client.is_closed()


def test_pipelined_requests_of_a_half_closed_client_are_all_answered(origin: OriginMaker, proxy: ProxyMaker) -> None:
    with proxy(origin(echo_target)).client() as client:
        client.send(b"".join(request_bytes(target=b"/%d" % number) for number in range(5)))
        client.half_close()
        assert [client.receive().body for _ in range(5)] == [b"/0", b"/1", b"/2", b"/3", b"/4"]
        assert client.is_closed()


# -- what else passes through


def test_expect_continue_is_asked_of_the_upstream(origin: OriginMaker, proxy: ProxyMaker) -> None:
    def script(connection: OriginConnection) -> None:
        request = connection.read_head()
        assert request is not None
        assert request.get(b"expect") == b"100-continue"
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.send(hello(b"".join(connection.body_pieces(request))))

    with proxy(origin(script)).client() as client:
        wire = request_bytes(b"POST", fields=[(b"Expect", b"100-continue")], body=b"the body")
        client.send(wire[: -len(b"the body")])
        assert client.receive_any_head().status == 100
        client.send(b"the body")
        assert client.receive().body == b"the body"


def test_a_switch_opens_a_tunnel_with_early_bytes_of_both_sides(origin: OriginMaker, proxy: ProxyMaker) -> None:
    def script(connection: OriginConnection) -> None:
        request = connection.read_head()
        assert request is not None
        assert (request.get(b"upgrade"), request.get(b"connection")) == (b"echo", b"upgrade")
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly ")
        while data := connection.read_some():
            connection.send(data)

    with proxy(origin(script)).client() as client:
        fields = [(b"Connection", b"Upgrade"), (b"Upgrade", b"echo")]
        client.send(request_bytes(fields=fields) + b"down ")
        assert client.receive_head().status == 101
        client.send(b"and up")
        assert client.read_bytes(17) == b"early down and up"
        client.half_close()
        assert client.read_to_end() == b""


def test_a_cache_hit_needs_no_upstream_and_its_body_is_read_off(origin: OriginMaker, proxy: ProxyMaker) -> None:
    there = origin(respond_always(hello(b"stored", b"Cache-Control: max-age=60")))
    with proxy(there, cache=CacheConfig(enabled=True)).client() as client:
        client.request()
        assert client.request().body == b"stored"
        client.request(body=b"GET /evil HTTP/1.1\r\nHost: test.local\r\n\r\n")
        assert client.request().body == b"stored"
    assert b"/evil" not in [request.target for request in there.requests]


# -- draining


def test_an_idle_connection_is_told_to_close_with_its_next_response(origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(respond_always(hello())))
    with here.client() as client:
        assert not client.request().says_close()
        here.drain()
        assert not here.drained.is_set()
        assert client.request().says_close()
        assert client.is_closed()
    assert here.drained.wait(5.0)


def test_an_exchange_under_way_is_finished(origin: OriginMaker, proxy: ProxyMaker) -> None:
    answer = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        answer.wait(5.0)
        connection.send(hello())

    there = origin(script)
    here = proxy(there)
    with here.client() as client:
        client.send(GET)
        there.wait_requests(1)
        here.drain()
        answer.set()
        response = client.receive()
        assert (response.body, response.says_close()) == (b"hello", True)
    assert here.drained.wait(5.0)


def test_without_connections_a_drain_is_over_at_once(proxy: ProxyMaker) -> None:
    with refused_port() as dead:
        here = proxy(dead)
    here.drain()
    assert here.drained.wait(5.0)


def test_what_is_left_at_the_deadline_is_cut(origin: OriginMaker, proxy: ProxyMaker) -> None:
    there = origin(never_answer)
    here = proxy(there)
    with here.client() as busy, here.client() as idle:
        busy.send(GET)
        there.wait_requests(1)
        here.drain(0.2)
        assert here.drained.wait(5.0)
        assert busy.read_to_end() == idle.read_to_end() == b""


def test_a_draining_server_accepts_nothing_but_what_a_sweep_finds(origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(respond_always(hello())))
    held = threading.Event()
    release = threading.Event()

    def hold() -> None:
        held.set()
        release.wait(5.0)
        here.server.drain(30.0, here.drained.set, sweep=True)

    holder = threading.Thread(target=lambda: here.call(hold))
    holder.start()
    assert held.wait(5.0)
    with here.client() as waiting:  # in the queue, while the loop is held
        waiting.send(GET)
        release.set()
        holder.join()
        assert waiting.receive().says_close()
    assert here.drained.wait(5.0)
    late = here.client(timeout_s=0.3)
    late.send(GET)
    with pytest.raises(TimeoutError):
        late.receive()
    late.close()


def test_a_server_lingers_at_a_dropped_address_before_it_is_drained(
    origin: OriginMaker, proxy: ProxyMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minato.net.server._LINGER_S", 0.4)
    here = proxy(origin(respond_always(hello())))
    lingered = threading.Event()
    address = here.config.services[0].listen
    here.call(lambda: here.server.linger({address}, lingered.set))
    here.drain(30.0)
    with here.client() as late:
        assert not here.drained.is_set()
        late.send(GET)
        assert late.receive().says_close()
    assert not lingered.is_set() and not here.drained.is_set(), "also without connections"
    assert here.drained.wait(5.0) and lingered.is_set()
    after = here.client(timeout_s=0.3)
    after.send(GET)
    with pytest.raises(TimeoutError):
        after.receive()
    after.close()


def test_stop_closes_everything_at_once(origin: OriginMaker, proxy: ProxyMaker) -> None:
    there = origin(never_answer)
    here = proxy(there)
    with here.client() as busy, here.client() as idle:
        busy.send(GET)
        there.wait_requests(1)
        here.call(here.server.stop)
        assert busy.read_to_end() == idle.read_to_end() == b""
    assert there.connections[0].saw_end.wait(5.0)


def test_the_repr_tells_how_it_stands(origin: OriginMaker, proxy: ProxyMaker) -> None:
    there = origin(respond_always(hello()))
    here = proxy(there)
    with here.client() as client:
        client.request()
        shown = here.call(lambda: repr(here.server))
    assert shown.startswith("<Server 1 listeners, 1 connections, <IdlePool 0: 1 idle>")
