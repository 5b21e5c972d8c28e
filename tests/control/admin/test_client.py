"""The command line's client of the admin API: what it makes of whoever answers, or does not."""

from __future__ import annotations

import socket
import threading

import pytest

from minato.config.model import ListenAddress
from minato.control.admin.client import post
from minato.errors import BootError


def post_to(answer: bytes, host: str = "127.0.0.1") -> tuple[int, dict[str, object]]:
    """Post to a server that sends this, whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            sock, _ = server.accept()
            with sock:
                sock.recv(65_536)
                sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            return post(ListenAddress(host, server.getsockname()[1]), "/purge", {"all": True})
        finally:
            thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_answer_arrives_whatever_its_status(host: str) -> None:
    answer = b'HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 13\r\n\r\n{"purged": 1}'
    assert post_to(answer, host) == (504, {"purged": 1})


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xff",
    ],
)
def test_whoever_is_not_minato_is_told_from_it(answer: bytes) -> None:
    with pytest.raises(BootError, match=r"is not minato's admin API|cannot reach the admin API"):
        post_to(answer)


def test_nobody_there_is_one_clear_line() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = ListenAddress("127.0.0.1", unused.getsockname()[1])
        with pytest.raises(BootError, match=f"cannot reach the admin API on {address}: connection refused"):
            post(address, "/purge", {})
