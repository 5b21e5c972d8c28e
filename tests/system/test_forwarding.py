"""Issue line 6, what is forwarded: hop-by-hop fields, Via, X-Forwarded-*, HEAD, 204, 304, 1xx, Expect, HTTP/1.0."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Instances
from .harness import App, Client, Minato, Origin, OriginConnection, request_bytes, response_bytes

Fields = list[tuple[bytes, bytes]]
StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Any]


@pytest.fixture(scope="module")
def app(module_origin: Callable[..., App]) -> App:
    return module_origin()


@pytest.fixture(scope="module")
def proxy(module_instances: Instances, app: App) -> Minato:
    return module_instances.start(app)


@pytest.fixture(scope="module")
def trusting(module_instances: Instances, app: App) -> Minato:
    return module_instances.start(app, trusted_proxies=["127.0.0.0/8"])


def echoed(instance: Minato, fields: Fields = (), **options: Any) -> dict[str, list[str]]:
    """The fields the upstream received: name -> values in order."""
    with instance.client() as client:
        response = client.request(fields=fields, **options)
    assert response.status == 200, response
    received: dict[str, list[str]] = {}
    for name, value in json.loads(response.body)["fields"]:
        received.setdefault(name, []).append(value)
    return received


def test_via_and_forwarded_fields_are_added(proxy: Minato) -> None:
    fields = echoed(proxy)
    assert fields["via"] == ["1.1 minato"]
    assert fields["x-forwarded-for"] == ["127.0.0.1"]
    assert fields["x-forwarded-proto"] == ["http"]
    assert fields["x-forwarded-host"] == ["test.local"]


def test_via_is_appended_to_that_of_other_proxies(proxy: Minato) -> None:
    assert ", ".join(echoed(proxy, [(b"Via", b"1.0 other")])["via"]) == "1.0 other, 1.1 minato"


FORGED = [
    (b"X-Forwarded-For", b"10.1.1.1, 10.2.2.2"),
    (b"X-Forwarded-Proto", b"https"),
    (b"X-Forwarded-Host", b"evil.test"),
]


def test_forwarded_fields_of_strangers_are_replaced(proxy: Minato) -> None:
    fields = echoed(proxy, FORGED)
    assert fields["x-forwarded-for"] == ["127.0.0.1"]
    assert fields["x-forwarded-proto"] == ["http"]
    assert fields["x-forwarded-host"] == ["test.local"]


def test_forwarded_fields_of_trusted_proxies_are_kept_and_appended_to(trusting: Minato) -> None:
    fields = echoed(trusting, FORGED)
    assert ", ".join(fields["x-forwarded-for"]) == "10.1.1.1, 10.2.2.2, 127.0.0.1"
    assert fields["x-forwarded-proto"] == ["https"]
    assert fields["x-forwarded-host"] == ["evil.test"]


def test_trusted_proxy_that_sends_none_gets_the_same_as_others(trusting: Minato) -> None:
    fields = echoed(trusting)
    assert (fields["x-forwarded-for"], fields["x-forwarded-proto"]) == (["127.0.0.1"], ["http"])


def test_connection_field_cannot_strip_the_forwarded_fields(proxy: Minato) -> None:
    fields = echoed(proxy, [(b"Connection", b"X-Forwarded-For, X-Forwarded-Proto, Via, close"), *FORGED])
    assert fields["x-forwarded-for"] == ["127.0.0.1"]
    assert fields["x-forwarded-proto"] == ["http"]
    assert fields["via"] == ["1.1 minato"]


def test_hop_by_hop_fields_of_requests_end_here(proxy: Minato) -> None:
    sent = [
        (b"Connection", b"X-Mine, keep-alive"),
        (b"X-Mine", b"1"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Proxy-Connection", b"keep-alive"),
        (b"TE", b"gzip"),
        (b"X-Yours", b"2"),
    ]
    fields = echoed(proxy, sent)
    assert fields["x-yours"] == ["2"]
    for name in ("x-mine", "keep-alive", "proxy-connection", "te", "upgrade"):
        assert name not in fields
    assert "x-mine" not in ",".join(fields.get("connection", [])).lower()


def test_order_and_duplicates_of_fields_are_kept(proxy: Minato) -> None:
    fields = echoed(proxy, [(b"X-A", b"1"), (b"X-B", b"2"), (b"X-A", b"3"), (b"Cookie", b"a=b; c=d")])
    assert fields["x-a"] == ["1", "3"] and fields["x-b"] == ["2"] and fields["cookie"] == ["a=b; c=d"]


def test_hop_by_hop_fields_of_responses_end_here(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    app.routes[b"/"] = response_bytes(
        b"x",
        fields=[
            (b"Connection", b"X-Mine, keep-alive"),
            (b"X-Mine", b"1"),
            (b"Keep-Alive", b"timeout=5"),
            (b"X-Yours", b"2"),
            (b"Set-Cookie", b"a=1"),
            (b"Set-Cookie", b"b=2"),
        ],
    )
    with minato(app).client() as client:
        response = client.request()
    assert response.values(b"x-mine") == [] and response.values(b"keep-alive") == []
    assert response.values(b"x-yours") == [b"2"] and response.values(b"set-cookie") == [b"a=1", b"b=2"]


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"REPORT"])
def test_methods_pass_through(proxy: Minato, method: bytes) -> None:
    with proxy.client() as client:
        assert json.loads(client.request(method, b"/x").body)["method"] == method.decode()


@pytest.mark.parametrize("status", [200, 201, 203, 301, 302, 400, 404, 410, 418, 500, 503, 599])
def test_statuses_of_upstreams_pass_through(proxy: Minato, status: int) -> None:
    with proxy.client() as client:
        assert client.request(target=b"/status/%d" % status).status == status


@pytest.mark.parametrize("target", [b"/status/204", b"/status/304"])
def test_responses_without_body_leave_the_connection_usable(proxy: Minato, target: bytes) -> None:
    with proxy.client() as client:
        response = client.request(target=target)
        assert response.body == b"" and response.values(b"transfer-encoding") == []
        assert client.request().status == 200


def test_head_keeps_the_content_length_and_brings_no_body(proxy: Minato) -> None:
    with proxy.client() as client:
        response = client.request(b"HEAD", b"/bytes/12345")
        assert response.get(b"content-length") == b"12345"
        assert client.request().status == 200


def test_upstream_request_line_and_framing(proxy: Minato, app: App) -> None:
    with proxy.client() as client:
        client.request(b"POST", b"/a%20b?c=d%2F", body=b"xyz")
    request = app.requests[-1]
    assert request.head.startswith(b"POST /a%20b?c=d%2F HTTP/1.1\r\n")
    assert request.get(b"content-length") == b"3" and request.values(b"transfer-encoding") == []


def test_chunked_upload_reaches_the_upstream_whole(proxy: Minato) -> None:
    with proxy.client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"chunked")]))
        client.send(b"5\r\nhello\r\n1;ext=1\r\n \r\n5\r\nworld\r\n0\r\nX-Trailer: 1\r\n\r\n")
        echo = json.loads(client.receive().body)
        assert echo["body_bytes"] == 11
        assert client.request().status == 200


def scripted_1xx(connection: OriginConnection) -> None:
    while connection.read_request() is not None:
        connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        connection.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        connection.send(response_bytes(b"final", fields=[(b"Cache-Control", b"no-store")]))


def test_interim_responses_are_passed_on(minato: StartMinato, origin: MakeOrigin) -> None:
    with minato(origin(scripted_1xx)).client() as client:
        for _ in range(2):
            response = client.request()
            assert response.body == b"final"
            assert [interim.status for interim in response.interim] == [103, 102]
            assert response.interim[0].get(b"link") == b"</a.css>; rel=preload"


def test_interim_responses_are_kept_from_http_1_0_clients(minato: StartMinato, origin: MakeOrigin) -> None:
    with minato(origin(scripted_1xx)).client() as client:
        response = client.request(version=b"1.0")
        assert response.body == b"final" and response.interim == []


def continuing(connection: OriginConnection) -> None:
    request = connection.read_head()
    assert request is not None
    connection.origin.record(request)
    connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = b"".join(connection.body_pieces(request))
    connection.send(response_bytes(body))


def test_expect_100_continue_is_answered_before_the_body_is_sent(minato: StartMinato, origin: MakeOrigin) -> None:
    with minato(origin(continuing)).client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Expect", b"100-continue"), (b"Content-Length", b"4")]))
        assert client.receive_any_head().status == 100
        client.send(b"body")
        response = client.receive()
        assert response.status == 200 and response.body == b"body"
        assert [interim.status for interim in response.interim] == []  # one 100 is enough


def test_expect_100_continue_can_end_in_a_refusal_without_the_body(minato: StartMinato, origin: MakeOrigin) -> None:
    def refusing(connection: OriginConnection) -> None:
        connection.read_head()
        connection.send(response_bytes(b"no", status=b"403 Forbidden", fields=[(b"Connection", b"close")]))

    with minato(origin(refusing)).client() as client:
        client.send(request_bytes(b"PUT", fields=[(b"Expect", b"100-continue"), (b"Content-Length", b"4")]))
        response = client.receive()
        # Either the refusal alone, or after a 100 of minato's own; the body was never sent, so the connection must end.
        assert response.status == 403


def test_unknown_expectation_is_417(proxy: Minato) -> None:
    with proxy.client() as client:
        response = client.request(fields=[(b"Expect", b"the-impossible")])
        assert response.status == 417


def test_early_final_response_reaches_a_client_that_is_still_sending(minato: StartMinato, origin: MakeOrigin) -> None:
    def early(connection: OriginConnection) -> None:
        connection.read_head()
        connection.send(response_bytes(b"no", status=b"403 Forbidden", fields=[(b"Connection", b"close")]))
        connection.half_close()
        connection.wait_closed(5)

    with minato(origin(early)).client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"1000000")]) + b"x" * 1000)
        assert client.receive().status == 403


def test_http_1_0_client_gets_a_closed_connection_and_no_chunks(proxy: Minato) -> None:
    with proxy.client() as client:
        response = client.request(target=b"/chunked/100000", version=b"1.0")
        assert response.status == 200 and len(response.body) == 100_000
        assert response.values(b"transfer-encoding") == []
        assert client.is_closed()


def test_http_1_0_client_may_ask_for_keep_alive(proxy: Minato) -> None:
    with proxy.client() as client:
        response = client.request(target=b"/bytes/10", version=b"1.0", fields=[(b"Connection", b"keep-alive")])
        assert len(response.body) == 10
        if not response.says_close() and b"keep-alive" in b",".join(response.values(b"connection")).lower():
            assert client.request(target=b"/bytes/10", version=b"1.0").status == 200
        else:
            assert client.is_closed()  # not keeping it is allowed; keeping it unsaid is not


def test_http_1_0_request_without_host_goes_nowhere(proxy: Minato) -> None:
    with proxy.client() as client:
        assert client.request(version=b"1.0", host=None).status in (400, 404)


def test_http_1_0_upstream_is_understood(minato: StartMinato, origin: MakeOrigin) -> None:
    def old(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.0 200 OK\r\n\r\nold body")

    instance = minato(origin(old))
    with instance.client() as client:
        for _ in range(2):
            response = client.request()
            assert response.body == b"old body" and response.version == b"1.1"


def test_response_until_close_is_reframed_for_a_kept_connection(proxy: Minato) -> None:
    with proxy.client() as client:
        assert len(client.request(target=b"/close/100000").body) == 100_000
        assert client.request().status == 200


def test_own_answers_and_forwarded_ones_carry_a_date(proxy: Minato) -> None:
    with proxy.client() as client:
        assert client.request().get(b"date") is not None
        assert client.request(host=b"unknown.test").get(b"date") is not None


def test_options_star_and_connect_do_not_end_the_worker(proxy: Minato) -> None:
    before = proxy.worker_pids()
    for line in (
        b"OPTIONS * HTTP/1.1\r\nHost: test.local\r\n\r\n",
        b"CONNECT a.test:1 HTTP/1.1\r\nHost: a.test:1\r\n\r\n",
    ):
        with Client(proxy.port) as client:
            client.send(line)
            assert 200 <= client.receive_head().status < 600
    assert proxy.worker_pids() == before


def test_trace_is_off(proxy: Minato) -> None:
    with proxy.client() as client:
        assert client.request(b"TRACE", b"/").status == 405


def test_bare_origin_still_sees_one_host_field(proxy: Minato, app: Origin) -> None:
    with proxy.client() as client:
        client.request()
    assert app.requests[-1].values(b"host") == [b"test.local"]
