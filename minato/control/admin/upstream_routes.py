"""GET /upstreams, POST /drain and POST /undrain: where every upstream stands, and which of them get no new requests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from minato.config.problems import did_you_mean, shown
from minato.control.admin.answer import Answer, refuse
from minato.control.admin.json_body import read_object
from minato.control.admin.routes import Reply, Route, Routes
from minato.control.drains import Drained

log = logging.getLogger("minato.admin")

MAX_UPSTREAMS = 256
_MAX_LISTED = 16
_KEYS = ("upstream",)
_EXAMPLE = '{"upstream": "http://127.0.0.1:9001"}'


class UpstreamDesk(Protocol):
    """What the routes need of minato.control.upstream_desk.UpstreamDesk."""

    def describe(self) -> Sequence[Mapping[str, object]]: ...
    def names(self) -> Mapping[str, Sequence[str]]: ...
    def mark_drain(self, keys: Sequence[str], on: bool, on_marked: Callable[[Drained], None]) -> None: ...


def make_upstream_routes(desk: UpstreamDesk) -> Routes:
    """Return the routes that are about upstreams."""

    def answer_upstreams(body: bytes, reply: Reply) -> None:
        reply(Answer(200, {"upstreams": desk.describe()}))

    return {
        b"/upstreams": Route(b"GET", answer_upstreams),
        b"/drain": Route(b"POST", _make_drain(desk, True)),
        b"/undrain": Route(b"POST", _make_drain(desk, False)),
    }


def _make_drain(desk: UpstreamDesk, on: bool) -> Callable[[bytes, Reply], None]:
    def mark(body: bytes, reply: Reply) -> None:
        urls = _read_urls(body)
        keys = _find_keys(urls, desk.names())
        log.info("%s asked for: %s", "drain" if on else "undrain", ", ".join(keys))

        def finish(outcome: Drained) -> None:
            content: dict[str, object] = {"draining" if on else "undrained": keys, "open": outcome.open_by_service}
            if outcome.missing:
                content["missing"] = len(outcome.missing)
                content["error"] = "an older master did not confirm in time; the others have done it"
            reply(Answer(504 if outcome.missing else 200, content))

        desk.mark_drain(keys, on, finish)

    return mark


def _read_urls(body: bytes) -> list[str]:
    content: dict[str, Any] = read_object(body, _EXAMPLE)
    for key in content:
        if key not in _KEYS:
            raise refuse(400, f"unknown key {shown(key)}; {did_you_mean(key, _KEYS)}")
    value = content.get("upstream")
    urls: list[Any] = value if isinstance(value, list) else [value]
    if not urls or not all(isinstance(url, str) and url for url in urls):
        raise refuse(400, f"upstream: expected the URL of an upstream as in the config, or a list of such: {_EXAMPLE}")
    if len(urls) > MAX_UPSTREAMS:
        raise refuse(400, f"upstream: {len(urls)} are more than one request may name ({MAX_UPSTREAMS})")
    return urls


def _find_keys(urls: Sequence[str], names: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the keys of all upstreams that are called so; all are found, or none is touched."""
    keys: dict[str, None] = {}
    for url in urls:
        found = names.get(url) or names.get(url.rstrip("/"))
        if found is None:
            known = list(dict.fromkeys(key for found_keys in names.values() for key in found_keys))
            listed = ", ".join(known[:_MAX_LISTED]) + (" ..." if len(known) > _MAX_LISTED else "")
            raise refuse(404, f"no upstream is called {shown(url)}; there are {listed}")
        keys.update(dict.fromkeys(found))
    return list(keys)
