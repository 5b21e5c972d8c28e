"""How much hot answers hold on to (net.hot): alone, and in front of an origin."""

from __future__ import annotations

import gc
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from minato.net import hits
from minato.net.hot import HotAnswers
from tests.net.hit_support import CACHE, HOT, MAX_AGE, ask, make_hot
from tests.net.proxy import OriginMaker, ProxyMaker, hello
from tests.system.harness import OriginConnection, request_bytes
from tests.system.harness.origin import Script

BUDGET_BYTES = 400_000
SMALL_CACHE = replace(CACHE, capacity=4, max_memory_bytes=20 * BUDGET_BYTES)
PREFIX = b"/held-by-hot-answers/"


def an_answer(wire_bytes: int, stored_bytes: int) -> Any:
    return SimpleNamespace(wire=bytes(wire_bytes), stored=SimpleNamespace(body=bytes(stored_bytes)))


def a_head() -> Any:
    return SimpleNamespace(hot=None)


def held_by(heads: list[Any]) -> int:
    return sum(len(head.hot.wire) + len(head.hot.stored.body) for head in heads if head.hot is not None)


def serve(body_bytes: int) -> Script:
    """A script that answers GET and HEAD as one resource of that size."""

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            whole = hello(b"x" * body_bytes, MAX_AGE)
            connection.send(whole[:-body_bytes] if request.method == b"HEAD" else whole)

    return script


def held_for(prefix: bytes) -> int:
    """Return what all hot answers to such paths hold, whoever keeps them."""
    gc.collect()  # those of another test's proxy are in cycles
    answers = [one for one in gc.get_objects() if isinstance(one, hits.HotAnswer)]
    return sum(len(one.wire) + len(one.stored.body) for one in answers if one.stored.key[3].startswith(prefix))


@pytest.mark.parametrize(("wire_bytes", "stored_bytes"), [(60, 40), (10, 90), (7, 0), (100, 900)])
def test_what_is_kept_never_exceeds_the_budget(wire_bytes: int, stored_bytes: int) -> None:
    answers, heads = HotAnswers(1000), [a_head() for _ in range(300)]
    for head in heads:
        answers.keep(head, an_answer(wire_bytes, stored_bytes))
        assert head.hot is not None
        assert held_by(heads) <= 1000


def test_what_was_let_go_may_be_kept_again() -> None:
    answers, heads = HotAnswers(1000), [a_head() for _ in range(3)]
    for head in heads:
        answers.keep(head, an_answer(200, 200))
    assert [head.hot is not None for head in heads] == [False, False, True]
    answers.keep(heads[0], an_answer(200, 200))
    assert [head.hot is not None for head in heads] == [True, False, True]


def test_an_answer_that_is_renewed_is_kept() -> None:
    answers, head = HotAnswers(1000), a_head()
    for _ in range(50):  # each second Age grows
        hot = an_answer(200, 200)
        answers.keep(head, hot)
        assert head.hot is hot


@pytest.mark.parametrize(("method", "body_bytes"), [(b"GET", 60_000), (b"HEAD", 60_000), (b"HEAD", 500_000)])
def test_hot_answers_hold_no_more_than_a_share_of_the_cache(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], method: bytes, body_bytes: int
) -> None:
    gc.collect()  # what other tests left behind is not counted
    with proxy(origin(serve(body_bytes)), cache=SMALL_CACHE).client() as client:
        for number in range(24):
            target = PREFIX + b"%d" % number
            ask(client, request_bytes(target=target))
            for _ in range(4):
                ask(client, request_bytes(method, target=target))
        assert held_for(PREFIX) <= BUDGET_BYTES


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_an_answer_is_hot_again_after_all_were_let_go(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], method: bytes
) -> None:
    with proxy(origin(serve(60_000)), cache=replace(SMALL_CACHE, capacity=50)).client() as client:
        wires = [request_bytes(method, target=b"/%d" % number) for number in range(12)]
        for number, wire in enumerate(wires):
            ask(client, request_bytes(target=b"/%d" % number))
            make_hot(client, lanes, wire)
        ask(client, wires[0])
        assert lanes[-1] != HOT
        make_hot(client, lanes, wires[0])
