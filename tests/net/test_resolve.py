"""Resolving upstream names: numeric hosts, names, failures, bounds."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from minato.config.model import BalancerKind, Config, ListenAddress, Service, Upstream
from minato.net.resolve import ResolvedAddress, resolve_numeric, resolve_upstreams


def make_config(*hosts: str) -> Config:
    upstreams = tuple(Upstream(f"http://{host}:81", "http", host, 81) for host in hosts)
    return Config("c.yaml", (Service("s", ListenAddress("", 80), BalancerKind.ROUND_ROBIN, (), upstreams),))


def answer(address: str) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 81))]


def test_numeric_hosts_need_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: pytest.fail("asked"))
    found = resolve_upstreams(make_config("127.0.0.1", "::1"))
    assert found["http://127.0.0.1:81/"] == (ResolvedAddress(socket.AF_INET, ("127.0.0.1", 81)),)
    assert found["http://[::1]:81/"] == (ResolvedAddress(socket.AF_INET6, ("::1", 81, 0, 0)),)


def test_name_is_not_numeric() -> None:
    assert resolve_numeric("localhost", 1) is None


def test_name_keeps_all_its_addresses_in_order_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = answer("10.0.0.2") + answer("10.0.0.1") + answer("10.0.0.2")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: entries)
    (addresses,) = resolve_upstreams(make_config("name.test")).values()
    assert [address.sockaddr[0] for address in addresses] == ["10.0.0.2", "10.0.0.1"]


def test_name_that_does_not_resolve_has_no_address_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **kwargs: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert resolve_upstreams(make_config("gone.test")) == {"http://gone.test:81/": ()}
    assert "cannot resolve gone.test" in caplog.text


def test_name_that_does_not_resolve_any_more_keeps_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [])
    before = {"http://gone.test:81/": (ResolvedAddress(socket.AF_INET, ("10.0.0.9", 81)),)}
    assert resolve_upstreams(make_config("gone.test"), before) == before


def test_hanging_name_delays_others_no_longer_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def ask(host: bytes, port: int, **kwargs: Any) -> list[Any]:
        if host == b"hangs.test":
            release.wait(30)
        return answer("10.0.0.1")

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    began_s = time.monotonic()
    found = resolve_upstreams(make_config("hangs.test", "quick.test"), timeout_s=0.2)
    release.set()
    assert time.monotonic() - began_s < 10
    assert found["http://hangs.test:81/"] == ()
    assert len(found["http://quick.test:81/"]) == 1
