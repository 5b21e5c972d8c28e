"""Hits without an exchange: what net.exchange would answer from the cache, for requests that need no thought.

A *plain hit* answers a GET that has no field a cache must weigh, from a stored response without Vary.

A *hot answer* is one that went to a request which comes again. The same bytes select the same stored response, whatever
its Vary; where that does not name Cookie, so do bytes that differ in the cookie alone. Age is told in whole seconds. So
the answer can go out again as it is until Age grows, while the stored response is live (not replaced, purged or
evicted) and fresh. Each second the cache decides anew.

Both answer byte for byte what the exchange would; tests/net holds them against it. What each gains is in
docs/performance.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from minato.caching.key import PrimaryKey
from minato.caching.request import DECIDING_FIELDS
from minato.caching.rules import CacheRules
from minato.caching.status import render_hit as render_member
from minato.caching.stored import StoredResponse
from minato.errors import RequestError
from minato.net.context import WorkerContext
from minato.net.hot import HotAnswer
from minato.net.record import record_plain_hit
from minato.net.routing import find_service
from minato.protocol.fields import FieldBlock
from minato.protocol.message import Framing, HeadMemo, RequestHead
from minato.protocol.render import render_lines

if TYPE_CHECKING:
    from minato.net.client import Client
    from minato.net.downstream import Downstream

MAX_HOT_BYTES: Final = 65_536  # of one body
_HTTP_1_1: Final = 11


def keep_hot(
    context: WorkerContext,
    client: Client,
    head: RequestHead,
    stored: StoredResponse,
    front: bytes,
    body: bytes | memoryview,
) -> None:
    """A stored response went out as ``front`` and ``body`` on a connection that stays: keep that, if it may go again.

    With trusted proxies the same bytes of two clients may be two different requests.
    """
    memo = head.memo
    if memo is None or not (memo.is_exact or b"cookie" not in stored.names):
        return  # the next request may select another one
    if not _is_for_all_of(memo, context.cache_rules[stored.key[0]]):
        return
    if stored.has_rivals:
        return
    if len(stored.body) <= MAX_HOT_BYTES and not context.trusts_some and is_plain(head.block):
        _keep(context, client, memo, stored, front + body, len(body))


def answer_hit(context: WorkerContext, client: Downstream, head: RequestHead) -> bool:
    """Answer a complete request from the store without an exchange; tell whether that was possible.

    It goes out at the end of the turn: those of pipelined requests together, and fewer clients are woken one by one
    (0.8 us less than at once).
    """
    if context.draining:
        return False
    memo = head.memo
    if memo is not None:
        hot = memo.hot
        # Another listen address may send the same request to another service.
        if isinstance(hot, HotAnswer) and hot.holds(context.loop.wall_s) and hot.routes is client.routes:
            context.touch(hot.stored)
            context.row.hit_again(hot.status, hot.body_bytes)
            if context.access_log is not None:
                record_plain_hit(context, head, client.address, hot.status, hot.body_bytes)
            client.write(hot.wire)
            return True
    return _answer_plain_hit(context, client, head)


def _answer_plain_hit(context: WorkerContext, client: Downstream, head: RequestHead) -> bool:
    cache = context.cache
    if cache is None or context.trusts_some or not is_plain(head.block):
        return False
    if head.method != b"GET" or not head.keep_alive or head.framing is not Framing.NONE:
        return False
    if head.version < _HTTP_1_1 or head.upgrade:
        return False
    try:
        index = find_service(client.routes, head)
    except RequestError:
        return False  # for the exchange to answer
    if index is None:
        return False
    now_s = context.loop.wall_s
    rules = context.cache_rules[index]
    key = (index, b"http", head.host, head.path) if rules is None else _find_key(rules, index, head)
    stored = cache.find_plain_hit(key, now_s) if key is not None else None
    if stored is None:
        return False
    body = stored.body
    wire = render_hit(stored, now_s, cache.shown_key(stored.key))
    context.row.hit_again(stored.status, len(body))
    if context.access_log is not None:
        record_plain_hit(context, head, client.address, stored.status, len(body))
    if len(body) > MAX_HOT_BYTES:
        client.write(wire)
        client.write(body)
        return True
    wire += body
    if head.memo is not None and _is_for_all_of(head.memo, rules):
        _keep(context, client, head.memo, stored, wire, len(body))
    client.write(wire)
    return True


def _find_key(rules: CacheRules, index: int, head: RequestHead) -> PrimaryKey | None:
    """Return the key of a plain request by its service's rules, None where they let it pass the cache by."""
    fields = head.block.end_to_end
    if rules.is_bypassed(head.path, fields):
        return None
    target, extra = rules.key_target(head.path), rules.key_extra(fields)
    return (index, b"http", head.host, target) if extra is None else (index, b"http", head.host, target, extra)


def _is_for_all_of(memo: HeadMemo, rules: CacheRules | None) -> bool:
    """Tell whether all heads of a memo get the same answer, though their cookies may differ."""
    return rules is None or memo.is_exact or not rules.looks_at_cookies


def _keep(
    context: WorkerContext, client: Client, memo: HeadMemo, stored: StoredResponse, wire: bytes, body_bytes: int
) -> None:
    hot = HotAnswer(client.routes, context.loop.wall_s, stored, wire, stored.status, body_bytes)
    context.hot.keep(memo, hot)


def is_plain(block: FieldBlock) -> bool:
    """Tell whether a request with those fields is answered by whatever is stored and fresh, its Vary aside."""
    known = block.known
    if known.is_plain is None:
        known.is_plain = not (known.has_override or any(name in DECIDING_FIELDS for name, _ in known.fields))
    return known.is_plain


def render_hit(stored: StoredResponse, now_s: float, key: bytes = b"") -> bytes:
    """Return the head of a whole, fresh stored response, as `Cache.answer` and the exchange make it.

    It is kept for as long as Age, and with it the ``ttl`` of Cache-Status, stays the same; all but these for longer.

    Args:
        stored: the response.
        now_s: wall clock.
        key: the ``key`` of Cache-Status, which is not kept.
    """
    age_s = int(stored.age_s(now_s))
    rendered = stored.rendered
    if rendered is None:
        lines = render_lines([field for field in stored.fields if field[0] != b"content-length"])
        front = b"HTTP/1.1 %d %b\r\n%bage: " % (stored.status, stored.reason, lines)
        back = b"\r\nvia: 1.1 minato\r\ncontent-length: %d\r\n\r\n" % len(stored.body)
    elif rendered[1] == age_s and not key:
        return rendered[0]
    else:
        head, _, age_at, behind_at = rendered
        front, back = head[:age_at], head[behind_at:]
    told = b"%d\r\ncache-status: %b" % (age_s, render_member(stored.ttl_s(now_s)))
    stored.rendered = (front + told + back, age_s, len(front), len(front) + len(told))
    return front + told + key + back if key else stored.rendered[0]
