"""What remains of an exchange: counts on the board, a line in the access log, a few words for the log of events."""

from __future__ import annotations

from typing import Final

from minato.caching.status import LookupReason
from minato.net.context import WorkerContext
from minato.net.runtime import UpstreamRuntime
from minato.protocol.message import RequestHead, first_value
from minato.shared.board import Counter
from minato.telemetry.access_format import AccessEntry, render_agents, render_request_line, render_tail

_MAX_DESCRIBED_BYTES: Final = 120
_HIT: Final = LookupReason.HIT.value


def record_access(
    context: WorkerContext,
    head: RequestHead,
    client: str,
    status: int,
    bytes_down: int,
    began_s: float,
    upstream: UpstreamRuntime | None,
    cache: str,
    failure: str,
) -> None:
    """Log an exchange that ended, where the access log is on.

    Args:
        context: of the worker.
        head: the request.
        client: its address.
        status: of the response sent or begun; 0 where there was none.
        bytes_down: body bytes sent to it.
        began_s: monotonic second at which the head was complete.
        upstream: the one tried last.
        cache: how the lookup came out, or empty.
        failure: why it failed, or empty.
    """
    access_log = context.access_log
    if access_log is None:
        return
    if access_log.is_combined:
        # Kept with a head that comes again, since most of its answers are alike, too.
        memo = head.memo
        kept = None if memo is None else memo.access_tail
        if kept is None or kept[0] != status or kept[1] != bytes_down:
            kept = (status, bytes_down, _render_tail(head, status, bytes_down))
            if memo is not None:
                memo.access_tail = kept
        if access_log.record_combined(client, kept[2], context.loop.wall_s):
            return
    referer, user_agent = _agents(head)
    access_log.record(
        AccessEntry(
            client=client,
            method=head.method,
            target=head.target,
            version=head.version,
            status=status,
            body_bytes=bytes_down,
            referer=referer,
            user_agent=user_agent,
            host=head.host,
            duration_s=context.loop.now_s - began_s,
            upstream=upstream.label if upstream is not None else "",
            cache=cache,
            wall_s=context.loop.wall_s,
            failure=failure,
        )
    )


def _render_tail(head: RequestHead, status: int, body_bytes: int) -> bytes:
    known = head.block.known
    agents = known.agents
    if agents is None:
        agents = known.agents = render_agents(*_agents(head))
    return render_tail(render_request_line(head.method, head.target, head.version), status, body_bytes, agents)


def _agents(head: RequestHead) -> tuple[bytes, bytes]:
    fields = head.block.known.fields
    return first_value(fields, b"referer") or b"", first_value(fields, b"user-agent") or b""


def record_plain_hit(context: WorkerContext, head: RequestHead, client: str, status: int, body_bytes: int) -> None:
    """Log a hit that was answered without an exchange."""
    record_access(context, head, client, status, body_bytes, context.loop.now_s, None, _HIT, "")


def record_refused_head(context: WorkerContext, client: str, status: int, bytes_down: int, failure: str) -> None:
    """Count and log a request that could not be read."""
    context.row.add(Counter.REQUESTS)
    context.row.add(Counter.RESPONSES_4XX if status < 500 else Counter.RESPONSES_5XX)
    if context.access_log is None:
        return
    context.access_log.record(
        AccessEntry(
            client=client,
            method=b"",
            target=b"",
            version=0,
            status=status,
            body_bytes=bytes_down,
            referer=b"",
            user_agent=b"",
            host=b"",
            duration_s=0.0,
            upstream="",
            cache="",
            wall_s=context.loop.wall_s,
            failure=failure,
        )
    )


def describe_request(head: RequestHead) -> str:
    """Return a request in a few words, for the log of events; its bytes are visible ASCII (the guard saw to it)."""
    return b" ".join((head.method, head.host, head.path[:_MAX_DESCRIBED_BYTES])).decode("ascii", "replace")
