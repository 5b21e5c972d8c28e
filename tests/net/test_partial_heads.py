"""Heads that do not end: their deadline, and their memory all together; and how many requests a connection has."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.config.model import CacheConfig, Limits, Timeouts
from minato.net.partial_heads import PartialHeads
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, echo_target, hello
from tests.net.support import Clock
from tests.system.harness import request_bytes
from tests.system.harness.origin import respond_always

GET = request_bytes()


class Owner:
    def __init__(self) -> None:
        self.is_shed = False

    def shed(self) -> None:
        self.is_shed = True


def test_the_oldest_goes_until_the_rest_fits() -> None:
    heads: PartialHeads[Owner] = PartialHeads(100)
    owners = [Owner() for _ in range(4)]
    for owner in owners[:3]:
        heads.hold(owner, 30)
    heads.hold(owners[0], 40)  # more of the same head: it stays the oldest
    assert not any(owner.is_shed for owner in owners)
    heads.hold(owners[3], 80)
    assert [owner.is_shed for owner in owners] == [True, True, True, False]
    assert heads.held_bytes == 80
    heads.drop(owners[3])
    heads.drop(owners[3])
    assert heads.held_bytes == 0


def test_a_head_that_is_too_much_by_itself_goes_itself() -> None:
    heads, owner = PartialHeads[Owner](10), Owner()
    heads.hold(owner, 11)
    assert (owner.is_shed, heads.held_bytes) == (True, 0)


def test_without_a_bound_nothing_goes() -> None:
    heads, owner = PartialHeads[Owner](0), Owner()
    heads.hold(owner, 1_000_000_000)
    assert not owner.is_shed


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40), st.booleans()), max_size=60))
def test_the_sum_is_true_and_bounded(steps: list[tuple[int, int, bool]]) -> None:
    heads: PartialHeads[Owner] = PartialHeads(100)
    owners, sizes = [Owner() for _ in range(10)], [0] * 10
    for number, size, is_over in steps:
        if is_over:
            heads.drop(owners[number])
            sizes[number] = 0
        else:
            sizes[number] = size
            heads.hold(owners[number], size)
        for index, owner in enumerate(owners):
            if owner.is_shed:
                owner.is_shed, sizes[index] = False, 0
        assert heads.held_bytes == sum(sizes) <= 100


def held(here: Proxy) -> int:
    return here.call(lambda: here.server._context.partial_heads.held_bytes)


def test_unfinished_heads_have_a_bound_all_together(origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(respond_always(hello())), limits=Limits(partial_heads_bytes=100_000))
    part = GET[:-2] + b"X: %s" % (b"x" * 20_000)
    with ExitStack() as stack:
        clients = [stack.enter_context(here.client()) for _ in range(12)]
        for client in clients:
            client.send(part)
            while held(here) % len(part):  # it may come in pieces
                pass
        for client in clients[:8]:
            response = client.receive()
            assert (response.status, response.get(b"retry-after"), response.says_close()) == (503, b"1", True)
        for client in clients[8:]:
            client.send(b"\r\n\r\n")
            assert client.receive().body == b"hello"
        assert held(here) == 0


@pytest.mark.parametrize("end", ["whole", "FIN", "RST", "timeout", "refused"])
def test_a_head_is_not_counted_once_it_has_ended(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, end: str
) -> None:
    here = proxy(origin(respond_always(hello())))
    with here.client() as client:
        for _ in range(2 if end == "whole" else 1):
            client.send(GET[:-2])
            while held(here) != len(GET) - 2:
                pass
            if end == "whole":
                client.send(b"\r\n")
                assert client.receive().body == b"hello"
            elif end == "FIN":
                client.half_close()
                assert client.is_closed()
            elif end == "RST":
                client.reset()
            elif end == "timeout":
                clock.advance(11.0)
                here.call(lambda: None)
                assert client.receive().status == 408
            else:
                client.send(b"bad\n")
                assert client.receive().status == 400
        while held(here):
            pass


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_head_that_drips_has_its_deadline_as_a_whole_wherever_it_stands(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, before: int
) -> None:
    """The first, a later one, and the rest of pipelined requests."""
    here = proxy(origin(echo_target), timeouts=Timeouts(client_header_s=10.0, client_idle_s=1000.0))
    with here.client() as client:
        client.send(GET * before + GET[:20])
        for _ in range(before):
            assert client.receive().status == 200
        for byte in b"abcd":
            for _ in range(5):
                here.call(lambda: None)
            client.send(bytes([byte]))
            clock.advance(2.4)
        for _ in range(3):
            here.call(lambda: None)
        client.send(b"x")
        clock.advance(0.5)
        here.call(lambda: None)
        response = client.receive()
        assert (response.status, response.says_close(), client.is_closed()) == (408, True, True)


def test_empty_lines_before_a_request_extend_nothing(clock: Clock, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(echo_target), timeouts=Timeouts(client_header_s=10.0, client_idle_s=30.0))
    with here.client() as client:
        client.send(GET)
        assert client.receive().status == 200
        client.sock.settimeout(5)
        with_end = False
        for _ in range(40):
            try:
                client.send(b"\r\n")
                clock.advance(1.0)
                for _ in range(3):
                    here.call(lambda: None)
            except OSError:
                with_end = True
                break
        assert with_end or client.is_closed()


# -- requests of one connection


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("express", [False, True])
def test_a_connection_has_as_many_requests_as_it_may_and_the_last_one_says_so(
    origin: OriginMaker, proxy: ProxyMaker, cached: bool, express: bool
) -> None:
    here = proxy(
        origin(respond_always(hello(b"hello", b"Cache-Control: max-age=60"))),
        limits=Limits(connection_requests=5),
        cache=CacheConfig(enabled=cached),
        express=express,
    )
    for _ in range(2):
        with here.client() as client:
            for number in range(1, 6):
                client.send(GET)
                response = client.receive()
                assert (response.body, response.says_close()) == (b"hello", number == 5)
            assert client.is_closed()


@pytest.mark.parametrize("cached", [False, True])
def test_pipelined_requests_beyond_the_last_are_not_answered_and_take_no_answer_along(
    origin: OriginMaker, proxy: ProxyMaker, cached: bool
) -> None:
    there = origin(respond_always(hello(b"hello", b"Cache-Control: max-age=60")))
    here = proxy(there, limits=Limits(connection_requests=50), cache=CacheConfig(enabled=cached))
    with here.client() as client:
        client.send(GET * 400)
        responses = [client.receive() for _ in range(50)]
        assert [response.says_close() for response in responses] == [False] * 49 + [True]
        assert client.sock.recv(1) == b""


def test_a_body_on_the_last_request_is_forwarded(origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(echo_target), limits=Limits(connection_requests=1))
    with here.client() as client:
        client.send(request_bytes(b"POST", b"/up", body=b"x" * 300_000))
        response = client.receive()
        assert (response.body, response.says_close()) == (b"/up", True)


def test_a_head_of_very_many_lines_is_refused_before_they_are_read(origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(echo_target))
    for count, status in ((99, 200), (100, 200), (101, 431), (8_000, 431)):
        with here.client() as client:
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pad = b"X-Pad: %s\r\n" % (b"x" * 2_500) if count < 8_000 else b"a:\r\n"
            client.send(GET[:-2] + b"a:\r\n" * (count - 2) + pad + b"\r\n")
            response = client.receive()
            assert (response.status, count) == (status, count)
