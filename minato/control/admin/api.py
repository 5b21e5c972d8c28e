"""The API's requests: what each asks of the master, and what it is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from minato.caching.purge import PurgeRequest
from minato.control.admin.answer import Answer
from minato.control.admin.purge_body import read_purges
from minato.control.admin.routes import Reply, Route, Routes
from minato.control.admin.upstream_routes import UpstreamDesk, make_upstream_routes
from minato.decide.purging import PurgeOutcome

log = logging.getLogger("minato.admin")

BeginPurge = Callable[[Sequence[PurgeRequest], Callable[[PurgeOutcome], None]], None]
_MAX_LOGGED_CHARS = 200


def make_routes(
    *, health: Callable[[], tuple[str, int, str]], begin_purge: BeginPurge, upstreams: UpstreamDesk
) -> Routes:
    """Return the route table.

    Args:
        health: returns ``ok`` or what else is the matter, how many workers serve, and what else is to be known, if
            anything.
        begin_purge: has every worker purge, then calls back.
        upstreams: knows where upstreams stand, and has them drain.
    """

    def answer_health(body: bytes, reply: Reply) -> None:
        status, workers, note = health()
        content: dict[str, object] = {"status": status, "workers": workers}
        if note:
            content["note"] = note
        reply(Answer(200 if status == "ok" else 503, content))

    def purge(body: bytes, reply: Reply) -> None:
        purges = read_purges(body)

        def finish(outcome: PurgeOutcome) -> None:
            log.info("purged %s: %d found by %d workers", _describe(purges), outcome.purged, outcome.workers)
            reply(_answer_purge(outcome))

        begin_purge(purges, finish)

    return {
        b"/health": Route(b"GET", answer_health),
        b"/purge": Route(b"POST", purge),
        **make_upstream_routes(upstreams),
    }


def _answer_purge(outcome: PurgeOutcome) -> Answer:
    content: dict[str, object] = {"purged": outcome.purged, "workers": outcome.workers}
    if not outcome.missing:
        return Answer(200, content)
    content["missing"] = len(outcome.missing)
    content["error"] = "not every worker confirmed in time; those that are missing purge before they serve again"
    return Answer(504, content)


def _describe(purges: Sequence[PurgeRequest]) -> str:
    first = purges[0]
    text = f"{first.kind.value} {first.value.decode('ascii')}".strip()[:_MAX_LOGGED_CHARS]
    more = f" and {len(purges) - 1} more" if len(purges) > 1 else ""
    return f"{text}{more}{', soft' if first.soft else ''}"
