"""Configs for tests: plain dicts with the contract's keys, and short timeouts where a test need not wait long."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from .origin import HEALTH_TARGET, Origin

UpstreamLike = Origin | str | dict[str, Any]


def upstream(given: UpstreamLike) -> dict[str, Any]:
    """An upstream's entry from an origin, a URL or an entry already made."""
    if isinstance(given, dict):
        return given
    url = given.url if isinstance(given, Origin) else given
    return {"host": url, "health_uri": HEALTH_TARGET.decode()}


def service(
    port: int,
    upstreams: Iterable[UpstreamLike],
    *,
    name: str = "test",
    hosts: Sequence[str] = ("http://test.local/",),
    **keys: Any,
) -> dict[str, Any]:
    """A service on 127.0.0.1; further keys (balancer, retries, ...) as the contract names them."""
    entry = {"name": name, "listen": "127.0.0.1", "listen_port": port, "hosts": list(hosts)}
    return entry | keys | {"upstreams": [upstream(given) for given in upstreams]}


def make_config(services: Sequence[dict[str, Any]], **sections: Any) -> dict[str, Any]:
    """A whole config. MINATO_TEST_EXPRESS=false runs every test through the h11 codec."""
    config: dict[str, Any] = {"services": list(services), **sections}
    config.setdefault("timeouts", {}).setdefault("drain", 10)
    if "MINATO_TEST_EXPRESS" in os.environ:
        config.setdefault("express", os.environ["MINATO_TEST_EXPRESS"] != "false")
    return config
