"""A whole server in one thread: reuse, order, clients that leave, limits, retries, draining."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from minato.config.model import CacheConfig, Limits, Timeouts
from minato.shared.board import Counter
from tests.net.proxy import Proxy, hello
from tests.system.harness import Client, Origin, OriginConnection, Truncated, request_bytes, wait_until
from tests.system.harness.origin import Script, respond_always, respond_with

GET = request_bytes()
CHUNKED = request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"chunked")])
OriginMaker = Callable[[Script], Origin]
ProxyMaker = Callable[..., Proxy]


@pytest.fixture
def origin() -> Iterator[OriginMaker]:
    made: list[Origin] = []

    def make(script: Script) -> Origin:
        made.append(Origin(script))
        return made[-1]

    yield make
    for one in made:
        one.stop()
        assert not one.failures


@pytest.fixture
def proxy() -> Iterator[ProxyMaker]:
    made: list[Proxy] = []

    def make(*origins: Origin | int, **options: Any) -> Proxy:
        ports = [one if isinstance(one, int) else one.port for one in origins]
        made.append(Proxy(*ports, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def echo_target(connection: OriginConnection) -> None:
    """Answer every request with its target."""
    while (request := connection.read_request()) is not None:
        connection.send(hello(request.target))


def never_answer(connection: OriginConnection) -> None:
    if connection.read_request() is not None:
        connection.wait_closed()


@contextlib.contextmanager
def refused_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


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


# -- limits and deadlines towards the client


def refusal(here: Proxy, wire: bytes) -> int:
    """Send, expect an answer and then the end of the connection; return the status."""
    with here.client() as client:
        with contextlib.suppress(ConnectionError):
            client.send(wire)
        response = client.receive()
        assert response.says_close()
        assert client.is_closed()
        return response.status


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"rubbish\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (request_bytes(fields=[(b"X", b"y" * 5000)]), 431),
        (request_bytes(fields=[(b"X", b"y")] * 20), 431),
        (request_bytes(target=b"/" + b"a" * 500), 414),
        (request_bytes(fields=[(b"Expect", b"cows")]), 417),
        (request_bytes(b"POST", body=b"x" * 1001)[:-1], 413),
        (request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"cow")]), 501),
        (CHUNKED + b"500\r\n" + b"x" * 0x500, 413),
        (CHUNKED + b"zz\r\n", 400),
    ],
)
def test_what_is_refused_is_answered_and_the_connection_ends(
    origin: OriginMaker, proxy: ProxyMaker, wire: bytes, status: int
) -> None:
    limits = Limits(header_bytes=4000, header_fields=10, target_bytes=400, body_bytes=1000)
    here = proxy(origin(respond_always(hello())), limits=limits)
    assert refusal(here, wire) == status
    assert here.client().request().status == 200


@pytest.mark.parametrize(
    "wire", [request_bytes(b"POST", body=b"x" * 1001), CHUNKED + b"500\r\n" + b"x" * 0x500 + b"\r\n0\r\n\r\n"]
)
def test_a_body_over_the_limit_that_is_there_already_is_read_off(
    origin: OriginMaker, proxy: ProxyMaker, wire: bytes
) -> None:
    with proxy(origin(echo_target), limits=Limits(body_bytes=1000)).client() as client:
        client.send(wire + request_bytes(target=b"/next"))
        response = client.receive()
        assert response.status == 413
        assert client.is_closed() if response.says_close() else client.receive().body == b"/next"


def test_an_unknown_host_is_404_and_the_connection_goes_on(origin: OriginMaker, proxy: ProxyMaker) -> None:
    with proxy(origin(echo_target)).client() as client:
        assert client.request(host=b"other.test").status == 404
        assert client.request(b"POST", host=b"other.test", body=b"read off").status == 404
        assert client.request(target=b"/x").body == b"/x"


def test_a_slow_head_is_408_a_slow_body_too_and_an_idle_connection_is_just_closed(
    origin: OriginMaker, proxy: ProxyMaker
) -> None:
    timeouts = Timeouts(client_header_s=0.2, client_body_s=0.2, client_idle_s=0.2)
    here = proxy(origin(respond_always(hello())), timeouts=timeouts)
    assert refusal(here, GET[:-2]) == 408
    assert refusal(here, request_bytes(b"POST", body=b"x" * 9)[:-1]) == 408
    with here.client() as client:
        client.request()
        assert client.is_closed()
    with here.client() as client:
        assert client.is_closed()


def test_a_head_that_drips_is_408_all_the_same(origin: OriginMaker, proxy: ProxyMaker) -> None:
    """The deadline is for the whole head: bytes do not move it."""
    here = proxy(origin(respond_always(hello())), timeouts=Timeouts(client_header_s=0.3))
    with here.client() as client:
        dripping = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                for byte in GET[:-2] + b"X: " + b"y" * 1000:
                    if dripping.wait(0.02):
                        return
                    client.send(bytes([byte]))

        thread = threading.Thread(target=drip)
        thread.start()
        assert client.receive().status == 408
        dripping.set()
        thread.join()


def test_over_the_connection_limit_a_client_gets_503_until_another_leaves(
    origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = proxy(origin(respond_always(hello())), limits=Limits(connections=2))
    first, second = here.client(), here.client()
    assert first.request().status == second.request().status == 200
    assert refusal(here, b"") == 503
    first.close()
    wait_until(lambda: here.counted(Counter.CONNECTIONS_ACTIVE) == 1, "room")
    assert here.client().request().status == 200


# -- upstreams that fail


def test_a_refused_connection_is_retried_elsewhere_and_reported(origin: OriginMaker, proxy: ProxyMaker) -> None:
    with refused_port() as dead:
        here = proxy(dead, origin(respond_always(hello())))
        with here.client() as client:
            assert [client.request(method).status for method in (b"GET", b"POST", b"GET", b"POST")] == [200] * 4
        assert here.health_woken > 0
        assert here.call(lambda: here.board.refused(0)) == here.health_woken
        assert here.counted(Counter.RETRIES) == here.health_woken


def test_without_another_upstream_a_refusal_is_502(proxy: ProxyMaker) -> None:
    with refused_port() as dead:
        here = proxy(dead)
        with here.client() as client:
            assert client.request().status == 502
            assert client.request(b"POST", body=b"x").status == 502


def test_a_post_that_was_sent_is_not_repeated(origin: OriginMaker, proxy: ProxyMaker) -> None:
    def hang_up(connection: OriginConnection) -> None:
        connection.read_request()

    first, second = origin(hang_up), origin(hang_up)
    here = proxy(first, second)
    with here.client() as client:
        assert client.request(b"POST", body=b"pay").status == 502
        assert len(first.requests) + len(second.requests) == 1
        assert client.request(b"PUT", body=b"set").status == 502
    assert (len(first.requests) + len(second.requests)) == 3
    assert {request.body for one in (first, second) for request in one.requests} == {b"pay", b"set"}


def test_no_healthy_upstream_is_503_with_retry_after(origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(respond_always(hello())))
    here.board.set_health(0, False)
    with here.client() as client:
        response = client.request()
        assert (response.status, response.get(b"retry-after")) == (503, b"10")
        here.board.set_health(0, True)
        assert client.request().status == 200


def test_an_upstream_that_does_not_answer_is_504(origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(never_answer), timeouts=Timeouts(response_s=0.2))
    with here.client() as client:
        assert client.request().status == 504


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ],
)
def test_a_body_cut_short_reaches_the_client_as_cut_short(
    origin: OriginMaker, proxy: ProxyMaker, response: bytes
) -> None:
    with proxy(origin(respond_with(response))).client() as client:
        client.send(GET)
        received = b""
        with pytest.raises(Truncated):
            for piece in client.pieces(client.receive_head()):
                received += piece
        assert received in (b"half", b"")


def test_a_body_cut_short_for_http_1_0_ends_in_a_reset(origin: OriginMaker, proxy: ProxyMaker) -> None:
    response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    with proxy(origin(respond_with(response))).client() as client:
        client.send(request_bytes(version=b"1.0"))
        pieces = client.pieces(client.receive_head())
        with pytest.raises(ConnectionResetError):
            list(pieces)


@pytest.mark.parametrize(
    "response",
    [
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ],
)
def test_a_malformed_response_is_502_and_its_connection_is_not_reused(
    origin: OriginMaker, proxy: ProxyMaker, response: bytes
) -> None:
    there = origin(respond_always(response))
    with proxy(there, retries=0).client() as client:
        assert [client.request(b"POST").status, client.request(b"POST").status] == [502, 502]
    assert len(there.connections) == 2


@pytest.mark.parametrize(
    ("broken", "status"),
    [
        ("strip_hop_by_hop", 502),
        ("record_begin", None),
        pytest.param(
            "describe_request",
            None,
            marks=pytest.mark.xfail(
                reason="a bug while an upstream's failure is handled leaves the client waiting", strict=True
            ),
        ),
    ],
)
def test_a_bug_costs_one_exchange_and_not_the_server(
    origin: OriginMaker,
    proxy: ProxyMaker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
    status: int | None,
) -> None:
    there = origin(respond_always(hello()) if broken != "describe_request" else lambda _: None)
    here = proxy(there)
    with monkeypatch.context() as patch:
        patch.setattr(f"minato.net.exchange.{broken}", lambda *_, **__: 1 // 0)
        with here.client(timeout_s=2.0) as client:
            client.send(GET)
            if status is None:
                assert client.read_to_end() == b""
            else:
                assert client.receive().status == status
    assert "ZeroDivisionError" in caplog.text
    there.script = respond_always(hello())
    assert here.client().request().status == 200


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
    assert shown.startswith("<Server 1 listeners, 1 connections, <IdlePool (")
    assert "1 idle" in shown
