"""Connections that are over are gone: no timer, whose entry may stay in the heap for minutes, keeps them in memory."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from minato.net.downstream import Downstream
from minato.net.upstream import UpstreamConnection
from minato.shared.board import Counter
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, hello
from tests.system.harness import Client, Origin, OriginConnection, request_bytes, wait_until

GET = request_bytes()


def count_connections(here: Proxy, *, collects: bool = True) -> int:
    """Count the connections, of clients and to upstreams, that are in memory; in the loop's thread, between events."""

    def count() -> int:
        if collects:
            gc.collect()
        return sum(type(thing) in (Downstream, UpstreamConnection) for thing in gc.get_objects())

    return here.call(count)


def be_served(client: Client, there: Origin) -> None:
    assert client.request().status == 200


def leave_while_waiting(client: Client, there: Origin) -> None:
    wanted = len(there.requests) + 1
    client.send(request_bytes(target=b"/never"))
    there.wait_requests(wanted)


def leave_in_the_body(client: Client, there: Origin) -> None:
    wanted = len(there.requests) + 1
    client.send(request_bytes(b"POST", target=b"/never", body=b"x" * 100)[:-1])
    there.wait_requests(wanted)


def leave_in_the_head(client: Client, there: Origin) -> None:
    client.request()
    client.send(GET[:-2])


def say_nothing(client: Client, there: Origin) -> None:
    client.send(b"")


@pytest.mark.parametrize("use", [be_served, leave_while_waiting, leave_in_the_body, leave_in_the_head, say_nothing])
def test_closed_connections_are_not_kept_alive(
    origin: OriginMaker, proxy: ProxyMaker, use: Callable[[Client, Origin], None]
) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_head()) is not None:
            connection.origin.record(request)
            if request.target == b"/never":
                connection.wait_closed()
                return
            connection.send(hello(b"hello", b"Connection: close"))

    there = origin(script)
    here = proxy(there)
    before = count_connections(here)
    for _ in range(5):
        with here.client() as client:
            use(client, there)
    wait_until(lambda: here.counted(Counter.CONNECTIONS_ACCEPTED) == 5, "all to be accepted")
    wait_until(lambda: here.counted(Counter.CONNECTIONS_ACTIVE) == 0, "the end of all connections")
    assert count_connections(here) <= before


def test_closed_idle_connections_to_upstreams_are_not_kept_alive(origin: OriginMaker, proxy: ProxyMaker) -> None:
    def script(connection: OriginConnection) -> None:
        if connection.read_request() is not None:
            connection.send(hello())

    there = origin(script)
    here = proxy(there)
    before = count_connections(here)
    for number in range(5):
        with here.client() as client:
            client.request()
        there.wait_for(lambda number=number: there.connections[number].closed.is_set(), "the origin's end")
    wait_until(lambda: here.counted(Counter.CONNECTIONS_ACTIVE) == 0, "the end of all connections")
    wait_until(lambda: "idle" not in here.call(lambda: repr(here.server)), "the idle ones to be found dead")
    assert count_connections(here) <= before


@pytest.mark.parametrize("use", [leave_while_waiting, leave_in_the_body])
@pytest.mark.parametrize("express", [True, False])
def test_connections_that_were_given_up_are_no_garbage_to_be_found(
    origin: OriginMaker, proxy: ProxyMaker, use: Callable[[Client, Origin], None], express: bool
) -> None:
    """To look for that of a thousand clients that left takes the collector so long that all others notice."""

    def script(connection: OriginConnection) -> None:
        if (request := connection.read_head()) is not None:
            connection.origin.record(request)
            connection.wait_closed()

    there = origin(script)
    here = proxy(there, express=express)
    before = count_connections(here)
    gc.disable()
    try:
        for _ in range(5):
            with here.client() as client:
                use(client, there)
        wait_until(lambda: here.counted(Counter.CONNECTIONS_ACCEPTED) == 5, "all to be accepted")
        wait_until(lambda: here.counted(Counter.CONNECTIONS_ACTIVE) == 0, "the end of all connections")
        wait_until(lambda: count_connections(here, collects=False) <= before, "the end of all that they held", 5)
    finally:
        gc.enable()
