"""Whoever is about to connect to an address when a reload drops it is served: in the queue, or in the handshake yet."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct
import time
from collections.abc import Callable

import pytest

from .harness import App, Client, Minato, fetch, free_port, make_config, request_bytes, service, wait_until

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]

_ATTACH_FILTER, _DETACH_FILTER = 26, 27  # SO_*; not in the socket module


def begin_handshake(port: int) -> socket.socket:
    """Connect, deaf to the SYN-ACK: the server waits for the third packet until `finish_handshake`."""
    flags = (0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x12), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFF_FFFF)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in flags))
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HL", len(flags), ctypes.addressof(code)))
    sock.setblocking(False)
    assert sock.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
    return sock


def listen_again(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, struct.pack("i", 0))


def finish_handshake(sock: socket.socket) -> None:
    """Hear the SYN-ACK, which the server sends again after a second."""
    sock.settimeout(5)
    wait_until(lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01", "the connection")


def keep_beginning(port: int, is_over: Callable[[], object]) -> list[socket.socket]:
    """Begin handshakes until it is over; return recent ones from before that.

    The second SYN-ACK comes after a second, and for a little longer whoever is in the handshake is let in. The latest
    may have found that nobody invites any more.
    """
    clients: list[socket.socket] = []
    latest: list[socket.socket] = []
    while not clients or not is_over():
        for sock in clients:
            sock.close()
        clients, latest = latest, [begin_handshake(port) for _ in range(6)]
        time.sleep(0.2)
    for sock in latest:
        sock.close()
    return clients


def move_service(instance: Minato, app: App) -> tuple[int, int]:
    """Have the config listen on another port; returns both."""
    old, new = instance.port, free_port()
    instance.write_config(make_config([service(new, [app])]))
    return old, new


def test_client_in_its_handshake_at_a_dropped_address_is_served(minato: StartMinato, origin: MakeApp) -> None:
    app = origin(name="a")
    instance = minato(app, workers=2)
    old, new = move_service(instance, app)
    since = len(instance.lines)
    instance.signal(signal.SIGHUP)
    clients = keep_beginning(old, lambda: _listens(new))
    for sock in clients:
        listen_again(sock)
    for sock in clients:
        finish_handshake(sock)
        sock.sendall(request_bytes(fields=[(b"Connection", b"close")]))
        assert b" 200 OK" in sock.recv(65_536).split(b"\r\n")[0]
        sock.close()
    instance.wait_for_log(r"generation 2 serves", since=since)
    assert fetch(new).get(b"x-origin") == b"a"
    with pytest.raises(ConnectionRefusedError):
        Client(old)


def _listens(port: int) -> bool:
    try:
        Client(port).close()
    except ConnectionRefusedError:
        return False
    return True


def test_clients_in_the_queue_of_a_dropped_address_are_served(minato: StartMinato, origin: MakeApp) -> None:
    app = origin(name="a")
    instance = minato(app, workers=1, timeouts={"heartbeat": 60})
    (worker,) = instance.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    waiting = [instance.client() for _ in range(4)]
    _, new = move_service(instance, app)
    instance.signal(signal.SIGHUP)
    instance.wait_for_log(r"generation 2 serves")
    os.kill(worker, signal.SIGCONT)
    for client in waiting:
        client.send(request_bytes())
        assert client.receive().says_close()
        client.close()
    assert fetch(new).get(b"x-origin") == b"a"


def test_address_that_is_dropped_and_wanted_again_at_once_is_served(minato: StartMinato, origin: MakeApp) -> None:
    app = origin(name="a")
    instance = minato(app, workers=2)
    port, extra = instance.port, free_port()
    both = make_config([service(port, [app]), service(extra, [app], name="extra")])
    one = make_config([service(port, [app])])
    for config in (both, one, both, one, both):
        instance.write_config(config)
        instance.signal(signal.SIGHUP)
        assert fetch(port).status == 200
    wait_until(lambda: _listens(extra), "the extra address", 15)
    assert fetch(extra).get(b"x-origin") == b"a"
    assert instance.find_log("given up|in use") == []
