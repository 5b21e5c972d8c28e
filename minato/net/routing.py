"""Which service takes a request; looked up once for requests that come again."""

from __future__ import annotations

from minato.decide.route import RouteTable
from minato.protocol.message import RequestHead


def find_service(routes: RouteTable, head: RequestHead) -> int | None:
    """Return the index of the service that takes a request, None where none does.

    Raises:
        RequestError: 400, an ambiguous path; see `RouteTable.find`.
    """
    memo = head.memo
    if memo is not None and memo.routed is not None and memo.routed[0] is routes:
        return memo.routed[1]
    index = routes.find(head.host, b"/" if head.path == b"*" else head.path)
    if memo is not None and index is not None:
        memo.routed = (routes, index)
    return index
