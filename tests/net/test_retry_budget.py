"""Retries are a share of the traffic: what the budget does not pay for is answered with the first failure."""

from __future__ import annotations

import logging

import pytest

from minato.config.model import CacheConfig, RetryBudgetConfig, Timeouts
from minato.shared.board import Counter
from tests.net.proxy import OriginMaker, ProxyMaker, echo_target, hello, refused_port
from tests.system.harness import OriginConnection, request_bytes
from tests.system.harness.origin import Request

NONE = RetryBudgetConfig(0, 0)


@pytest.mark.parametrize("express", [True, False])
def test_what_the_budget_does_not_pay_for_is_not_retried(
    express: bool, origin: OriginMaker, proxy: ProxyMaker, caplog: pytest.LogCaptureFixture
) -> None:
    good = origin(echo_target)
    with refused_port() as dead, caplog.at_level(logging.INFO, "minato.exchange"):
        # Half of a retry for each request, and none saved: every other failure is retried, and half of them fail.
        here = proxy(dead, good, retry_budget=RetryBudgetConfig(0.25, 0), express=express)
        with here.client() as client:
            statuses = [client.request(target=b"/%d" % number).status for number in range(40)]
        assert statuses.count(200) + statuses.count(502) == 40
        assert statuses.count(502) == here.counted(Counter.RETRIES_DENIED) == 20 - here.counted(Counter.RETRIES)
        assert here.counted(Counter.RETRIES) in (9, 10)  # a quarter, less what faded meanwhile
    denied = [record.getMessage() for record in caplog.records if "no retry: budget spent" in record.getMessage()]
    assert len(denied) == statuses.count(502)


def test_without_failures_the_budget_grows_to_pay_for_many_at_once(origin: OriginMaker, proxy: ProxyMaker) -> None:
    with refused_port() as dead:
        here = proxy(origin(echo_target), dead, retry_budget=RetryBudgetConfig(0.2, 0))
        here.board.set_health(1, False)
        with here.client() as client:
            assert {client.request().status for _ in range(60)} == {200}
            here.board.set_health(1, True)
            assert [client.request().status for _ in range(20)] == [200] * 20
        assert (here.counted(Counter.RETRIES), here.counted(Counter.RETRIES_DENIED)) == (10, 0)


def test_the_default_forgives_a_dead_upstream_in_a_quiet_worker(origin: OriginMaker, proxy: ProxyMaker) -> None:
    with refused_port() as dead:
        here = proxy(dead, origin(echo_target))
        with here.client() as client:
            assert {client.request().status for _ in range(50)} == {200}
        assert here.counted(Counter.RETRIES) == 25


def test_a_stale_pooled_connection_costs_nothing(origin: OriginMaker, proxy: ProxyMaker) -> None:
    """The upstream closes behind every response without saying so, after the next request came."""
    seen: list[Request] = []

    def close_at_second(connection: OriginConnection) -> None:
        for number in range(2):
            request = connection.read_request()
            if request is None or number:
                return
            seen.append(request)
            connection.send(hello(request.target))

    here = proxy(origin(close_at_second), retry_budget=NONE)
    with here.client() as client:
        assert [client.request(target=b"/%d" % number).status for number in range(6)] == [200] * 6
    assert len(seen) == 6
    assert here.counted(Counter.RETRIES_DENIED) == 0


def test_where_there_is_nobody_else_to_ask_nothing_is_spent(proxy: ProxyMaker) -> None:
    with refused_port() as dead:
        here = proxy(dead, retry_budget=RetryBudgetConfig(0, 0.1))  # one retry is saved
        with here.client() as client:
            assert [client.request().status for _ in range(5)] == [502] * 5
        assert here.counted(Counter.RETRIES_DENIED) == 0


def test_a_timeout_that_is_not_retried_is_told_as_such(origin: OriginMaker, proxy: ProxyMaker) -> None:
    def silent(connection: OriginConnection) -> None:
        connection.read_request()
        connection.wait_closed()

    here = proxy(origin(silent), origin(silent), retry_budget=NONE, timeouts=Timeouts(response_s=0.1))
    with here.client() as client:
        assert client.request().status == 504
    assert here.counted(Counter.RETRIES_DENIED) == 1


def test_hits_pay_for_no_retries(origin: OriginMaker, proxy: ProxyMaker) -> None:
    def cacheable(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            connection.send(hello(request.target, b"Cache-Control: max-age=60"))

    with refused_port() as dead:
        budget = RetryBudgetConfig(1.0, 0)
        here = proxy(origin(cacheable), dead, retry_budget=budget, cache=CacheConfig(enabled=True))
        here.board.set_health(1, False)
        with here.client() as client:
            for _ in range(50):
                client.send(request_bytes(target=b"/hit"))
                assert client.receive().status == 200
            here.board.set_health(1, True)
            here.board.set_health(0, False)
            # One forwarded before, and this one itself, have paid; there is nobody to ask, so nothing is spent.
            assert client.request(target=b"/miss").status == 502
        assert here.call(lambda: repr(here.server._context.retries)).startswith("<Retries <RetryBudget ")
        budget_left = here.call(lambda: here.server._context.retries._budget._balance)
        assert 1.5 < budget_left <= 2.0
