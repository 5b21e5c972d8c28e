"""The exchange's phases, which may follow which, and whether a failed attempt is repeated on another upstream."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from minato.errors import MinatoError

IDEMPOTENT_METHODS = frozenset([b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"])
"""RFC 9110, 9.2.2."""


class Phase(enum.Enum):
    """Where an exchange stands; the order is the order of a forwarded one."""

    ROUTING = "routing"
    WAITING = "waiting for the response to another request"
    QUEUED = "waiting for room at an upstream"
    CONNECTING = "waiting for an upstream connection"
    AWAITING_HEAD = "waiting for the response head"
    RELAYING = "relaying the response"
    TUNNELLING = "tunnelling"
    DONE = "done"

    followers: tuple[Phase, ...]
    """The phases that may come next."""


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.ROUTING: frozenset([Phase.WAITING, Phase.QUEUED, Phase.CONNECTING, Phase.AWAITING_HEAD, Phase.DONE]),
    Phase.WAITING: frozenset(
        [Phase.WAITING, Phase.QUEUED, Phase.CONNECTING, Phase.AWAITING_HEAD, Phase.RELAYING, Phase.DONE]
    ),
    Phase.QUEUED: frozenset([Phase.CONNECTING, Phase.AWAITING_HEAD, Phase.DONE]),
    # What failed is sent once more: at once, on a new connection or a pooled one, or when there is room.
    Phase.CONNECTING: frozenset([Phase.QUEUED, Phase.CONNECTING, Phase.AWAITING_HEAD, Phase.DONE]),
    Phase.AWAITING_HEAD: frozenset(
        [Phase.QUEUED, Phase.CONNECTING, Phase.AWAITING_HEAD, Phase.RELAYING, Phase.TUNNELLING, Phase.DONE]
    ),
    Phase.RELAYING: frozenset([Phase.DONE]),
    Phase.TUNNELLING: frozenset([Phase.DONE]),
    Phase.DONE: frozenset(),
}


for _phase, _followers in TRANSITIONS.items():
    # Looked up as an attribute and compared by identity: hashing an enum member calls Python code.
    _phase.followers = tuple(_followers)


class ImpossibleTransition(MinatoError):
    """A bug: the exchange was to go where it cannot go from here."""


def check_transition(old: Phase, new: Phase) -> None:
    """Raise ImpossibleTransition, naming both, unless ``new`` may follow ``old``."""
    if new not in old.followers:
        raise ImpossibleTransition(f"from {old.name} to {new.name}")


class RetryVerdict(enum.Enum):
    """Whether to try again, and why not."""

    RETRY = "another attempt"
    RETRY_FRESH = "another attempt; the pooled connection had gone stale"
    NOT_RETRYABLE = "the failure would be the same elsewhere"
    ANSWERED = "a response has begun downstream"
    NOT_IDEMPOTENT = "the method is not idempotent and some of it was sent"
    BODY_GONE = "the body was sent and is not kept"
    EXHAUSTED = "no retries left"
    OVER_BUDGET = "no retry: budget spent"  # for the worker to say, not for `judge_retry`


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """What is known of an attempt that failed.

    Attributes:
        method: of the request.
        retryable: what the error says.
        response_begun: whether a byte of a final response went downstream.
        sent_bytes: how much of the request was handed to the upstream's socket.
        body_replayable: whether all of the body that was sent is still at hand.
        stale_connection: it was a pooled connection that closed without a byte of a response.
        retries_left: further upstreams the service allows.
        fresh_retried: whether a stale connection was already forgiven once.
    """

    method: bytes
    retryable: bool
    response_begun: bool
    sent_bytes: int
    body_replayable: bool
    stale_connection: bool
    retries_left: int
    fresh_retried: bool


def judge_retry(attempt: FailedAttempt) -> RetryVerdict:
    """Decide whether the request may be sent once more (RFC 9110, 9.2.2).

    A proxy MUST NOT automatically retry non-idempotent requests; what was never sent is not a retry. A pooled
    connection that the upstream closed while it was idle is no failure of the upstream: one fresh attempt comes on top
    of `retries`.
    """
    if not attempt.retryable:
        return RetryVerdict.NOT_RETRYABLE
    if attempt.response_begun:
        return RetryVerdict.ANSWERED
    if attempt.sent_bytes and attempt.method not in IDEMPOTENT_METHODS:
        return RetryVerdict.NOT_IDEMPOTENT
    if not attempt.body_replayable:
        return RetryVerdict.BODY_GONE
    if attempt.stale_connection and not attempt.fresh_retried:
        return RetryVerdict.RETRY_FRESH
    return RetryVerdict.RETRY if attempt.retries_left > 0 else RetryVerdict.EXHAUSTED
