"""What an upgrade may meet: a drain asked for while the new master boots, dropped addresses, purges over three."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minato.config.model import ListenAddress
from minato.control.admin.client import post

from .harness import App, Minato, free_port

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def admin_post(port: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
    status, told = post(ListenAddress("127.0.0.1", port), path, body)
    assert status == 200, told
    return told


def test_purge_reaches_the_first_of_three_masters(minato: StartMinato, origin: MakeApp) -> None:
    app, admin = origin(), free_port()
    app.routes[b"/page"] = answer(b"old")
    instance = minato(app, cache={"enabled": True}, admin={"listen": f"127.0.0.1:{admin}"})
    with instance.client() as client:
        assert client.request(target=b"/page").body == b"old"
        instance.upgrade()
        instance.upgrade()
        app.routes[b"/page"] = answer(b"new")
        admin_post(admin, "/purge", {"all": True})
        assert client.request(target=b"/page").body == b"new"
