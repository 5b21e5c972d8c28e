"""A whole server in one thread: limits and deadlines towards clients, upstreams that fail or lie."""

from __future__ import annotations

import contextlib
import threading

import pytest

from minato.config.model import Limits, Timeouts
from minato.shared.board import Counter
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, echo_target, hello, never_answer, refused_port
from tests.system.harness import OriginConnection, Truncated, request_bytes, wait_until
from tests.system.harness.origin import respond_always, respond_with

GET = request_bytes()
CHUNKED = request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"chunked")])

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
        (request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"cow, chunked")]), 501),
        (request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"cow")]), 400),
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
    "broken",
    [
        "minato.net.uplink.render_upstream_request",
        "minato.net.exchange.forward_response_lines",
        "minato.net.uplink.describe_request",
        "minato.shared.board.WorkerRow.request_begun",
    ],
)
def test_a_bug_costs_one_exchange_and_not_the_server(
    origin: OriginMaker,
    proxy: ProxyMaker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    there = origin(respond_always(hello()) if not broken.endswith("describe_request") else lambda _: None)
    here = proxy(there)
    with monkeypatch.context() as patch:
        patch.setattr(broken, lambda *_, **__: 1 // 0)
        with here.client(timeout_s=2.0) as client:
            client.send(GET)
            assert client.read_to_end() == b""
    assert "ZeroDivisionError" in caplog.text
    there.script = respond_always(hello())
    assert here.client().request().status == 200
