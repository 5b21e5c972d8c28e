"""Binding: one socket per slot and address, conflicts with others, none with ourselves."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from minato.config.model import ListenAddress
from minato.control.listeners import Listeners
from minato.errors import BootError
from tests.ports import free_port


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    made = Listeners()
    yield made
    made.close()


def local(port: int) -> ListenAddress:
    return ListenAddress("127.0.0.1", port)


def test_every_slot_has_a_listening_nonblocking_socket_for_every_address(listeners: Listeners) -> None:
    addresses = [local(free_port()), local(free_port())]
    listeners.bind(addresses, 3)
    assert listeners.slots() == [0, 1, 2]
    for slot in range(3):
        own = listeners.of_slot(slot, addresses)
        assert [listener.address for listener in own] == addresses
        assert all(listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for listener in own)
        assert not any(listener.sock.getblocking() for listener in own)


def test_connections_spread_over_the_slots(listeners: Listeners) -> None:
    address = local(free_port())
    listeners.bind([address], 2)
    clients = [socket.create_connection(("127.0.0.1", address.port)) for _ in range(64)]
    counts = []
    for slot in range(2):
        count = 0
        sock = listeners.of_slot(slot, [address])[0].sock
        try:
            while True:
                sock.accept()[0].close()
                count += 1
        except BlockingIOError:
            counts.append(count)
    for client in clients:
        client.close()
    assert sum(counts) == 64
    assert min(counts) > 0


def test_all_addresses_are_ipv4_and_ipv6(listeners: Listeners) -> None:
    port = free_port()
    listeners.bind([ListenAddress("", port)], 1)
    socket.create_connection(("127.0.0.1", port)).close()
    socket.create_connection(("::1", port)).close()


def test_second_bind_adds_only_what_is_missing(listeners: Listeners) -> None:
    first, second = local(free_port()), local(free_port())
    listeners.bind([first], 1)
    kept = listeners.of_slot(0, [first])
    assert listeners.bind([first, second], 2) == [(1, first), (0, second), (1, second)]
    assert listeners.of_slot(0, [first]) == kept


@pytest.mark.parametrize("share", [False, True])
def test_address_in_use_is_one_clear_line(listeners: Listeners, share: bool) -> None:
    with socket.socket() as other:
        if share:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BootError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: address already in use$"):
            listeners.bind([local(port)], 1)
        with pytest.raises(BootError, match=rf"^cannot listen on \*:{port}: address already in use$"):
            listeners.bind([ListenAddress("", port)], 1)


def test_failure_binds_nothing(listeners: Listeners) -> None:
    good = local(free_port())
    with pytest.raises(BootError, match="cannot assign requested address"):
        listeners.bind([good, ListenAddress("192.0.2.1", good.port)], 2)
    assert listeners.slots() == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", good.port))


def test_failure_leaves_what_was_there_before(listeners: Listeners) -> None:
    old = local(free_port())
    listeners.bind([old], 1)
    with pytest.raises(BootError):
        listeners.bind([old, ListenAddress("192.0.2.1", old.port)], 2)
    assert listeners.slots() == [0]
    socket.create_connection(("127.0.0.1", old.port)).close()


@pytest.mark.parametrize("wildcard_first", [True, False])
def test_own_wildcard_is_no_conflict_with_an_address_of_the_same_port(
    listeners: Listeners, wildcard_first: bool
) -> None:
    port = free_port()
    pair = [ListenAddress("", port), local(port)]
    if not wildcard_first:
        pair.reverse()
    listeners.bind(pair[:1], 1)
    listeners.bind(pair, 1)
    assert set(listeners.addresses()) == set(pair)


def test_dropped_addresses_are_closed_and_others_stay(listeners: Listeners) -> None:
    kept, dropped = local(free_port()), local(free_port())
    listeners.bind([kept, dropped], 2)
    listeners.keep_only([kept])
    socket.create_connection(("127.0.0.1", kept.port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", dropped.port))
