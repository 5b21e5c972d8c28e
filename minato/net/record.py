"""What remains of an exchange: counts on the board, a line in the access log, a few words for the log of events."""

from __future__ import annotations

from typing import Final

from minato.caching.status import LookupReason
from minato.net.context import WorkerContext
from minato.net.runtime import UpstreamRuntime
from minato.protocol.message import RequestHead, first_value
from minato.shared.board import Counter
from minato.telemetry.access_log import AccessEntry

_MAX_DESCRIBED_BYTES: Final = 120


def record_access(
    context: WorkerContext,
    head: RequestHead,
    *,
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
    if context.access_log is None:
        return
    known = head.block.known
    origins = known.origins
    if origins is None:
        fields = known.fields
        origins = first_value(fields, b"referer") or b"", first_value(fields, b"user-agent") or b""
        known.origins = origins
    context.access_log.record(
        AccessEntry(
            client=client,
            method=head.method,
            target=head.target,
            version=head.version,
            status=status,
            body_bytes=bytes_down,
            referer=origins[0],
            user_agent=origins[1],
            host=head.host,
            duration_s=context.loop.now_s - began_s,
            upstream=upstream.authority.decode("ascii") if upstream is not None else "",
            cache=cache,
            wall_s=context.loop.wall_s,
            failure=failure,
        )
    )


def record_plain_hit(context: WorkerContext, head: RequestHead, client: str, status: int, body_bytes: int) -> None:
    """Log a hit that was answered without an exchange."""
    record_access(
        context,
        head,
        client=client,
        status=status,
        bytes_down=body_bytes,
        began_s=context.loop.now_s,
        upstream=None,
        cache=LookupReason.HIT.value,
        failure="",
    )


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
