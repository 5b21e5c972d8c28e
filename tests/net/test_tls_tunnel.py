"""Tunnels to an https upstream: what the client receives is what was said inside TLS, and nothing else."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minato.net.loop import Loop
from minato.net.stream import Stream
from minato.net.tls_stream import TlsStream
from minato.net.tunnel import Tunnel
from tests.net.support import PATIENCE_S, Recorder, read_available, settle, turn_until
from tests.system.harness.tls import Authority

SAID = b"said before. said after"
Pair = Callable[[], tuple[socket.socket, socket.socket]]


class TlsEnds:
    """A tunnel whose upstream's side is TLS; ``client`` and ``origin`` are the far ends."""

    def __init__(self, loop: Loop, pair: Pair, authority: Authority) -> None:
        self.loop = loop
        near_client, self.client = pair()
        near_origin, far_origin = pair()
        server = authority.strict_server("origin.test")
        wrapped: list[ssl.SSLSocket] = []
        handshake = threading.Thread(target=lambda: wrapped.append(server.wrap_socket(far_origin, server_side=True)))
        handshake.start()
        near_origin.settimeout(PATIENCE_S)
        context = ssl.create_default_context(cafile=str(authority.ca_file))
        self.near = context.wrap_socket(near_origin, server_hostname="origin.test", suppress_ragged_eofs=False)
        self.near.setblocking(False)
        handshake.join(PATIENCE_S)
        (self.origin,) = wrapped
        streams = [Stream(loop, near_client, Recorder(), 60.0), TlsStream(loop, self.near, Recorder(), 60.0)]
        for stream in streams:
            stream.start()
        self.upstream = streams[1]
        self.closed = threading.Event()
        self.tunnel = Tunnel(streams[0], streams[1], self.closed.set)

    def close(self) -> None:
        self.tunnel.close()
        self.near.close()
        self.origin.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(Path(tmp_path_factory.mktemp("tls")))


@pytest.fixture
def ends(loop: Loop, pair: Pair, authority: Authority) -> Iterator[TlsEnds]:
    ends = TlsEnds(loop, pair, authority)
    yield ends
    ends.close()


def test_bytes_pass_both_ways(ends: TlsEnds) -> None:
    ends.client.send(b"to origin")
    settle(ends.loop)
    assert ends.origin.recv(100) == b"to origin"
    ends.origin.send(b"back")
    turn_until(ends.loop, lambda: ends.tunnel.bytes_down)
    assert read_available(ends.client) == b"back"


def test_tunnel_that_ends_says_so_to_the_upstream(ends: TlsEnds) -> None:
    ends.origin.suppress_ragged_eofs = False
    ends.client.send(b"all of it")
    turn_until(ends.loop, lambda: ends.tunnel.bytes_up)
    settle(ends.loop)
    ends.client.close()
    turn_until(ends.loop, ends.closed.is_set)
    assert ends.origin.recv(100) == b"all of it"
    assert ends.origin.recv(100) == b""


def test_tunnel_that_is_cut_does_not_look_like_one_that_ends(ends: TlsEnds) -> None:
    ends.origin.suppress_ragged_eofs = False
    ends.upstream.write(b"what is lost")
    ends.tunnel.close()
    with pytest.raises(ssl.SSLEOFError):
        ends.origin.recv(100)


def test_no_ciphertext_reaches_a_client_that_has_ended_its_half(ends: TlsEnds) -> None:
    ends.origin.send(b"said before. ")
    ends.client.send(b"last words")
    turn_until(ends.loop, lambda: (ends.tunnel.bytes_down, ends.tunnel.bytes_up) == (13, 10))
    ends.client.shutdown(socket.SHUT_WR)
    settle(ends.loop)
    ends.origin.send(b"said after")
    received = bytearray()

    def is_over() -> bool:
        received.extend(read_available(ends.client))
        return ends.closed.is_set() or len(received) >= len(SAID)

    turn_until(ends.loop, is_over)
    received += read_available(ends.client)
    assert SAID.startswith(received)
    assert received.startswith(b"said before. ")
