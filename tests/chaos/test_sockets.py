"""Whose connections a process has accepted is told exactly."""

from __future__ import annotations

import os
import socket

from tests.chaos.sockets import accepted_from


def test_accepted_connections_are_found_and_no_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        address, elsewhere = server.getsockname(), other.getsockname()
        with (
            socket.create_connection(address) as accepted,
            socket.create_connection(elsewhere) as foreign,
            other.accept()[0],
            server.accept()[0],
            socket.create_connection(address) as waiting,
        ):
            found = accepted_from(os.getpid(), {address[1]})
            assert accepted.getsockname()[1] in found
            assert not {foreign.getsockname()[1], waiting.getsockname()[1]} & found
            assert accepted_from(os.getppid(), {address[1]}) == frozenset()
