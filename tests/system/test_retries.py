"""Issue line 6, upstreams that fail: 502 and its kin, retries where they are safe and only there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from .harness import Minato, OriginConnection, fetch, request_bytes, response_bytes
from .harness.origin import respond_always, respond_with

StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Any]


def reset_after_reading(connection: OriginConnection) -> None:
    connection.read_request()
    connection.reset()


def close_after_reading(connection: OriginConnection) -> None:
    connection.read_request()


def reset_before_reading(connection: OriginConnection) -> None:
    connection.reset()


def garbage(connection: OriginConnection) -> None:
    connection.read_request()
    connection.send(b"\x00\x01\x02 this is not HTTP\r\n\r\n")


def cut_head(connection: OriginConnection) -> None:
    connection.read_request()
    connection.send(b"HTTP/1.1 200 OK\r\nContent-")


FAILING = [reset_after_reading, close_after_reading, reset_before_reading, garbage, cut_head]


@pytest.mark.parametrize("script", FAILING)
def test_failing_upstream_is_502_and_the_client_connection_goes_on(
    minato: StartMinato, origin: MakeOrigin, script: Any
) -> None:
    scripted = origin(script)
    with minato(scripted, service_keys={"retries": 0}).client() as client:
        for _ in range(2):
            response = client.request()
            assert response.status == 502
            assert b"127.0.0.1" not in response.body and len(response.body) < 300
    assert len(scripted.connections) == 2


def test_refused_upstream_is_502_or_503(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    instance = minato(app, health={"interval": 600}, service_keys={"retries": 0})
    app.stop()
    assert fetch(instance.port).status == 502


@pytest.mark.parametrize("script", [reset_after_reading, close_after_reading, reset_before_reading, cut_head])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"])
def test_idempotent_request_is_tried_on_another_upstream(
    minato: StartMinato, origin: MakeOrigin, script: Any, method: bytes
) -> None:
    bad, good = origin(script, name="bad"), origin(name="good")
    with minato(bad, good, health={"interval": 600}).client() as client:
        for _ in range(4):
            response = client.request(method, body=b"x" if method == b"PUT" else None)
            assert response.status == 200 and response.get(b"x-origin") == b"good"
    assert bad.connections


@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
def test_request_that_may_have_been_acted_upon_is_not_repeated(
    minato: StartMinato, origin: MakeOrigin, method: bytes
) -> None:
    bad, good = origin(reset_after_reading, name="bad"), origin(name="good")
    with minato(bad, good, health={"interval": 600}).client() as client:
        statuses = [client.request(method, body=b"x").status for _ in range(4)]
    assert sorted(statuses) == [200, 200, 502, 502]
    assert len(bad.requests) == 2 and len(good.requests) == 2


def test_post_is_retried_where_nothing_was_sent(minato: StartMinato, origin: MakeOrigin) -> None:
    refused, good = origin(name="refused"), origin(name="good")
    instance = minato(refused, good, health={"interval": 600, "fall": 1000})
    refused.stop()
    for _ in range(6):
        assert fetch(instance.port, method=b"POST", body=b"x").get(b"x-origin") == b"good"


def test_number_of_retries_is_bounded(minato: StartMinato, origin: MakeOrigin) -> None:
    bad = [origin(reset_after_reading) for _ in range(4)]
    instance = minato(*bad, health={"interval": 600}, service_keys={"retries": 2})
    assert fetch(instance.port).status == 502
    assert sum(len(scripted.requests) for scripted in bad) == 3
    assert max(len(scripted.requests) for scripted in bad) == 1  # never the same one twice


def test_no_retry_when_told_so(minato: StartMinato, origin: MakeOrigin) -> None:
    bad = [origin(reset_after_reading) for _ in range(3)]
    instance = minato(*bad, health={"interval": 600}, service_keys={"retries": 0})
    assert fetch(instance.port).status == 502
    assert sum(len(scripted.requests) for scripted in bad) == 1


def test_nothing_is_retried_once_a_byte_went_downstream(minato: StartMinato, origin: MakeOrigin) -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"
    bad = [origin(respond_with(cut)) for _ in range(2)]
    with minato(*bad).client() as client:
        client.send(request_bytes())
        client.read_to_end()
    assert sum(len(scripted.requests) for scripted in bad) == 1


def test_large_put_is_not_repeated_from_a_body_that_is_gone(minato: StartMinato, origin: MakeOrigin) -> None:
    """What was streamed away cannot be sent again: 502, not half a body on the other upstream."""
    bad, good = origin(reset_after_reading), origin(name="good")
    instance = minato(bad, good, health={"interval": 600})
    with instance.client() as client:
        for _ in range(2):
            response = client.request(b"PUT", body=b"x" * 3_000_000)
            assert response.status in (200, 502)
            if response.says_close():
                break
    assert all(len(request.body) == 3_000_000 for request in good.requests if request.body)


def test_5xx_of_an_upstream_is_an_answer_and_no_failure(minato: StartMinato, origin: MakeOrigin) -> None:
    failing = origin(respond_always(response_bytes(b"sorry", status=b"500 Oops")))
    good = origin(name="good")
    with minato(failing, good).client() as client:
        assert sorted(client.request().status for _ in range(4)) == [200, 200, 500, 500]


def test_refused_upstream_gets_no_second_request(minato: StartMinato, origin: MakeOrigin) -> None:
    """With fall 1, one refusal takes it out before the next probe is due."""
    gone, good = origin(name="gone"), origin(name="good")
    instance = minato(gone, good, health={"interval": 600})
    gone.stop()
    for _ in range(4):
        assert fetch(instance.port).status == 200
    instance.wait_for_log(rf"{gone.url}/health is down")


def test_upstream_name_that_does_not_resolve_is_down_and_ends_nothing(minato: StartMinato, origin: MakeOrigin) -> None:
    good = origin(name="good")
    instance = minato("http://no-such-name.invalid:80", good)
    assert [fetch(instance.port).get(b"x-origin") for _ in range(3)] == [b"good"] * 3


def test_every_address_of_a_name_is_tried(minato: StartMinato, origin: MakeOrigin) -> None:
    """localhost is ::1 first on many machines; the origin listens on 127.0.0.1 alone."""
    app = origin()
    instance = minato({"host": f"http://localhost:{app.port}", "health_uri": "/health"})
    for _ in range(3):
        assert fetch(instance.port, method=b"POST", body=b"x").status == 200


def test_upstream_by_ipv6_address(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin(host="::1")
    assert fetch(minato(app).port).status == 200
    assert app.requests[0].get(b"host") == b"test.local"


def test_failures_of_upstreams_are_logged_with_the_upstream(minato: StartMinato, origin: MakeOrigin) -> None:
    scripted = origin(garbage)
    instance = minato(scripted, service_keys={"retries": 0})
    assert fetch(instance.port).status == 502
    instance.wait_for_log(rf"127\.0\.0\.1:{scripted.port}")


def test_failing_fast_does_not_wait(minato: StartMinato, origin: MakeOrigin) -> None:
    instance = minato(origin(reset_after_reading), service_keys={"retries": 0}, timeouts={"response": 30})
    began_s = time.monotonic()
    assert fetch(instance.port).status == 502
    assert time.monotonic() - began_s < 5
