"""Whose connections a process has accepted is told exactly."""

from __future__ import annotations

import os
import socket

from tests.chaos.sockets import accepted_from, connections_on


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


def test_a_table_of_any_length_is_read() -> None:
    rest = "00000000:00000000 00:00000000 00000000     0        0"

    def row(number: int, local: int, remote: int, inode: int) -> str:
        return f"{number:4d}: 0100007F:{local:04X} 0100007F:{remote:04X} 01 {rest} {inode} 1 0000000000000000 20 4"

    # A listening socket, another port as the local one, and where a wider number moves the columns.
    rows = [row(0, 8080, 0, 7), row(1, 8081, 8080, 6), row(9_999, 8080, 81, 8), row(10_000, 8080, 82, 9)]
    table = "\n".join(["  sl  local_address rem_address   st ...", *rows])
    assert connections_on(table, {8080}) == [("8", 81), ("9", 82)]
