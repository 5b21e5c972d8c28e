"""The route table: which path takes which method, and with which body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from minato.control.admin.answer import Answer, refuse
from minato.protocol.message import RequestHead, field_values

Reply = Callable[[Answer], None]
Handler = Callable[[bytes, Reply], None]
"""Called with a request's whole body; it calls the reply once, now or later, or raises Refused."""


@dataclass(frozen=True, slots=True)
class Route:
    """What one path does.

    Attributes:
        method: GET, which takes HEAD as well, or POST, whose body is JSON.
        handle: does it.
    """

    method: bytes
    handle: Handler

    @property
    def methods(self) -> tuple[bytes, ...]:
        return (b"GET", b"HEAD") if self.method == b"GET" else (self.method,)


Routes = Mapping[bytes, Route]
"""By path."""


def find_route(routes: Routes, head: RequestHead) -> Route:
    """Return the route of a request whose body may come.

    Raises:
        Refused: 404, 405 with Allow, 415 for a POST of anything but JSON.
    """
    route = routes.get(head.path.partition(b"?")[0])
    if route is None:
        known = ", ".join(path.decode("ascii") for path in routes)
        raise refuse(404, f"nothing is here; there is {known}")
    if head.method not in route.methods:
        allowed = b", ".join(route.methods)
        raise refuse(405, f"this takes {allowed.decode('ascii')} alone", (b"allow", allowed))
    if route.method == b"POST" and not _is_json(head):
        raise refuse(415, "the body must be JSON, with Content-Type: application/json")
    return route


def _is_json(head: RequestHead) -> bool:
    values = field_values(head.block.fields, b"content-type")
    if len(values) != 1:
        return False
    kind, _, parameters = values[0].lower().partition(b";")
    charset = parameters.replace(b'"', b"").strip(b" \t")
    return kind.strip(b" \t") == b"application/json" and charset in (b"", b"charset=utf-8")
