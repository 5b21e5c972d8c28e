"""The exchange's phases and the verdict on a failed attempt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.decide.exchange import (
    IDEMPOTENT_METHODS,
    TRANSITIONS,
    FailedAttempt,
    ImpossibleTransition,
    Phase,
    RetryVerdict,
    check_transition,
    judge_retry,
)

METHODS = [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"POST", b"PATCH", b"get", b"X"]

# A GET whose connection was refused, one retry left: each test changes what it is about.
PLAIN = FailedAttempt(
    method=b"GET",
    retryable=True,
    response_begun=False,
    sent_bytes=0,
    body_replayable=True,
    stale_connection=False,
    retries_left=1,
    fresh_retried=False,
)

ATTEMPTS = st.builds(
    FailedAttempt,
    method=st.sampled_from(METHODS),
    retryable=st.booleans(),
    response_begun=st.booleans(),
    sent_bytes=st.integers(0, 2),
    body_replayable=st.booleans(),
    stale_connection=st.booleans(),
    retries_left=st.integers(0, 2),
    fresh_retried=st.booleans(),
)


def test_a_refused_get_is_tried_again() -> None:
    assert judge_retry(PLAIN) is RetryVerdict.RETRY


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"sent_bytes": 100}, RetryVerdict.RETRY),
        ({"retryable": False}, RetryVerdict.NOT_RETRYABLE),
        ({"response_begun": True}, RetryVerdict.ANSWERED),
        ({"body_replayable": False}, RetryVerdict.BODY_GONE),
        ({"retries_left": 0}, RetryVerdict.EXHAUSTED),
        ({"method": b"POST"}, RetryVerdict.RETRY),
        ({"method": b"POST", "sent_bytes": 1}, RetryVerdict.NOT_IDEMPOTENT),
        ({"method": b"PATCH", "sent_bytes": 1}, RetryVerdict.NOT_IDEMPOTENT),
        ({"method": b"PUT", "sent_bytes": 1}, RetryVerdict.RETRY),
        ({"method": b"PUT", "sent_bytes": 1, "body_replayable": False}, RetryVerdict.BODY_GONE),
        ({"stale_connection": True}, RetryVerdict.RETRY_FRESH),
        ({"stale_connection": True, "retries_left": 0}, RetryVerdict.RETRY_FRESH),
        ({"stale_connection": True, "fresh_retried": True}, RetryVerdict.RETRY),
        ({"stale_connection": True, "fresh_retried": True, "retries_left": 0}, RetryVerdict.EXHAUSTED),
        ({"stale_connection": True, "method": b"POST", "sent_bytes": 1}, RetryVerdict.NOT_IDEMPOTENT),
        ({"stale_connection": True, "response_begun": True}, RetryVerdict.ANSWERED),
    ],
)
def test_what_forbids_or_allows_another_attempt(changes: dict[str, object], verdict: RetryVerdict) -> None:
    assert judge_retry(replace(PLAIN, **changes)) is verdict  # type: ignore[arg-type]


@given(ATTEMPTS)
def test_a_retry_is_never_unsafe(attempt: FailedAttempt) -> None:
    if judge_retry(attempt) in (RetryVerdict.RETRY, RetryVerdict.RETRY_FRESH):
        assert attempt.retryable
        assert not attempt.response_begun
        assert attempt.body_replayable
        assert attempt.sent_bytes == 0 or attempt.method in {b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"}


@given(ATTEMPTS)
def test_attempts_come_to_an_end(attempt: FailedAttempt) -> None:
    """However an exchange fails, it is tried at most once per retry and once more for a stale connection."""
    attempts = 0
    while (verdict := judge_retry(attempt)) in (RetryVerdict.RETRY, RetryVerdict.RETRY_FRESH):
        attempts += 1
        if verdict is RetryVerdict.RETRY_FRESH:
            attempt = replace(attempt, fresh_retried=True)
        else:
            attempt = replace(attempt, retries_left=attempt.retries_left - 1)
        assert attempts <= 3


def test_post_and_patch_are_not_idempotent() -> None:
    assert not IDEMPOTENT_METHODS & {b"POST", b"PATCH", b"CONNECT", b"get"}


ALLOWED = {
    ("ROUTING", "CONNECTING"),
    ("ROUTING", "AWAITING_HEAD"),
    ("ROUTING", "DONE"),
    ("ROUTING", "WAITING"),
    ("ROUTING", "QUEUED"),
    ("WAITING", "WAITING"),
    ("WAITING", "QUEUED"),
    ("QUEUED", "CONNECTING"),
    ("QUEUED", "AWAITING_HEAD"),
    ("QUEUED", "DONE"),
    ("CONNECTING", "QUEUED"),
    ("AWAITING_HEAD", "QUEUED"),
    ("WAITING", "CONNECTING"),
    ("WAITING", "AWAITING_HEAD"),
    ("WAITING", "RELAYING"),
    ("WAITING", "DONE"),
    ("CONNECTING", "CONNECTING"),
    ("CONNECTING", "AWAITING_HEAD"),
    ("CONNECTING", "DONE"),
    ("AWAITING_HEAD", "CONNECTING"),
    ("AWAITING_HEAD", "AWAITING_HEAD"),
    ("AWAITING_HEAD", "RELAYING"),
    ("AWAITING_HEAD", "TUNNELLING"),
    ("AWAITING_HEAD", "DONE"),
    ("RELAYING", "DONE"),
    ("TUNNELLING", "DONE"),
}


@pytest.mark.parametrize("old", Phase)
@pytest.mark.parametrize("new", Phase)
def test_a_phase_follows_only_where_it_may(old: Phase, new: Phase) -> None:
    if (old.name, new.name) in ALLOWED:
        check_transition(old, new)
    else:
        with pytest.raises(ImpossibleTransition, match=f"from {old.name} to {new.name}"):
            check_transition(old, new)


def test_every_phase_can_end_and_nothing_follows_the_end() -> None:
    assert set(TRANSITIONS) == set(Phase)
    assert all(Phase.DONE in after for phase, after in TRANSITIONS.items() if phase is not Phase.DONE)
    assert not TRANSITIONS[Phase.DONE]
