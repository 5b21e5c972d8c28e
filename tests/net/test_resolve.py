"""IP addresses as sockets take them."""

from __future__ import annotations

import socket

import pytest

from minato.net.resolve import ResolvedAddress, resolve_numeric, with_port


def test_numeric_hosts_need_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: pytest.fail("asked"))
    assert resolve_numeric("127.0.0.1", 81) == ResolvedAddress(socket.AF_INET, ("127.0.0.1", 81))
    assert resolve_numeric("::1", 81) == ResolvedAddress(socket.AF_INET6, ("::1", 81, 0, 0))
    assert resolve_numeric("fe80::1%3", 81) == ResolvedAddress(socket.AF_INET6, ("fe80::1", 81, 0, 3))


def test_name_is_not_numeric() -> None:
    assert resolve_numeric("localhost", 1) is None


def test_addresses_keep_their_order() -> None:
    found = with_port(["10.0.0.2", "::1", "10.0.0.1"], 81)
    assert [address.sockaddr[0] for address in found] == ["10.0.0.2", "::1", "10.0.0.1"]
