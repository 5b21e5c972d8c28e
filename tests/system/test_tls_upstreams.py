"""Issue line 6, https upstreams: verified, named by SNI, pooled, streamed; a bad certificate is a 502 (or never up)."""

from __future__ import annotations

import json
import signal
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from .harness import Minato, OriginConnection, Truncated, fetch, request_bytes
from .harness.app import pattern, pattern_sha256
from .harness.tls import Authority, unknown_server

StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Any]


def test_https_upstream_is_forwarded_to_and_pooled(
    minato: StartMinato, origin: MakeOrigin, authority: Authority
) -> None:
    app = origin(tls=authority.server("127.0.0.1"))
    with minato(app, env=authority.env).client() as client:
        for number in range(5):
            echo = json.loads(client.request(b"POST", b"/x%d" % number, body=b"abc").body)
            assert (echo["target"], echo["body_bytes"]) == (f"/x{number}", 3)
    assert len(app.connections) == 1


def test_server_name_is_sent(minato: StartMinato, origin: MakeOrigin, authority: Authority) -> None:
    names: list[str | None] = []
    context = authority.server("localhost")
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    app = origin(tls=context)
    instance = minato({"host": f"https://localhost:{app.port}", "health_uri": "/health"}, env=authority.env)
    names.clear()
    assert fetch(instance.port).status == 200
    assert names == ["localhost"]


@pytest.mark.parametrize("case", ["unknown authority", "other name"])
def test_certificate_that_does_not_verify_gets_no_traffic(
    minato: StartMinato, origin: MakeOrigin, authority: Authority, case: str
) -> None:
    tls = unknown_server("127.0.0.1") if case == "unknown authority" else authority.server("other.test")
    app = origin(tls=tls)
    instance = minato(app, env=authority.env)
    assert fetch(instance.port).status == 503  # the probe found out
    assert app.requests == []


def test_certificate_that_turns_bad_is_502(minato: StartMinato, origin: MakeOrigin, authority: Authority) -> None:
    app = origin(tls=authority.server("127.0.0.1"))
    instance = minato(app, env=authority.env, health={"interval": 600}, service_keys={"retries": 0})
    app._tls = unknown_server("127.0.0.1")
    assert fetch(instance.port).status == 502
    assert app.requests == []


def test_plain_server_behind_an_https_upstream_is_not_spoken_to(
    minato: StartMinato, origin: MakeOrigin, authority: Authority
) -> None:
    app = origin()
    instance = minato(f"https://127.0.0.1:{app.port}", env=authority.env, health={"http_timeout": 0.5})
    assert fetch(instance.port).status == 503
    assert app.requests == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # old versions are what is tested
def test_tls_below_1_2_is_refused(minato: StartMinato, origin: MakeOrigin, authority: Authority) -> None:
    context = authority.server("127.0.0.1")
    try:
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    except ValueError:
        pytest.fail("this OpenSSL cannot make the old server the test needs")
    instance = minato(origin(tls=context), env=authority.env)
    assert fetch(instance.port).status == 503


def test_large_bodies_both_ways(minato: StartMinato, origin: MakeOrigin, authority: Authority) -> None:
    size = 20_000_000
    app = origin(tls=authority.server("127.0.0.1"))
    with minato(app, env=authority.env).client(timeout_s=30) as client:
        client.send(request_bytes(target=b"/bytes/%d" % size))
        assert client.digest(client.receive_head()) == (size, pattern_sha256(size))
        client.send(request_bytes(b"PUT", fields=[(b"Content-Length", b"%d" % size)]))
        for piece in pattern(size):
            client.send(piece)
        echo = json.loads(client.receive().body)
    assert (echo["body_bytes"], echo["body_sha256"]) == (size, pattern_sha256(size))


def test_events_over_tls_leave_one_by_one(minato: StartMinato, origin: MakeOrigin, authority: Authority) -> None:
    app = origin(tls=authority.server("127.0.0.1"))
    with minato(app, env=authority.env).client() as client:
        client.send(request_bytes(target=b"/events"))
        pieces = client.pieces(client.receive_head())
        for number in range(5):
            app.next_event.release()
            assert next(pieces) == b"data: %d\n\n" % number
        app.ended = True
        app.next_event.release()
        assert list(pieces) == []


def test_body_that_ends_with_a_close_alert_is_whole(
    minato: StartMinato, origin: MakeOrigin, authority: Authority
) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        assert isinstance(connection.sock, ssl.SSLSocket)
        connection.sock.unwrap()

    scripted = origin(script, tls=authority.server("127.0.0.1"))
    assert fetch(minato(scripted, env=authority.env).port).body == b"abc"


@pytest.mark.parametrize("end", ["surplus", "idle", "stop"])
def test_connection_that_minato_closes_ends_with_a_close_alert(
    minato: StartMinato, origin: MakeOrigin, authority: Authority, end: str
) -> None:
    """RFC 9112, 9.8: clients MUST send one. Without it the upstream takes the end for an attack, or fills its log."""
    ends: list[bytes | ssl.SSLError] = []

    def script(connection: OriginConnection) -> None:
        assert isinstance(connection.sock, ssl.SSLSocket)
        connection.sock.suppress_ragged_eofs = False
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + (b"more" if end == "surplus" else b""))
        try:
            ends.append(connection.sock.recv(100))
        except ssl.SSLError as error:
            ends.append(error)
        connection.origin.changed()

    scripted = origin(script, tls=authority.strict_server("127.0.0.1"))
    instance = minato(scripted, env=authority.env, timeouts={"upstream_idle": 0.3 if end == "idle" else 90})
    assert fetch(instance.port).body == b"ok"
    if end == "stop":
        instance.signal(signal.SIGTERM)
    scripted.wait_for(lambda: ends, "the end of the connection")
    assert ends == [b""]


@pytest.mark.parametrize("end", ["close", "reset"])
def test_body_cut_short_over_tls_never_ends_cleanly(
    minato: StartMinato, origin: MakeOrigin, authority: Authority, end: str
) -> None:
    """Where the body runs to the end of the connection, it is whole only with a close alert (RFC 9112, 9.8)."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        connection.reset() if end == "reset" else connection.close()

    scripted = origin(script, tls=authority.server("127.0.0.1"))
    with minato(scripted, env=authority.env, service_keys={"retries": 0}).client() as client:
        client.send(request_bytes())
        head = client.receive_head()
        if head.status == 200:
            with pytest.raises((Truncated, ConnectionError)):
                list(client.pieces(head))
        else:
            assert head.status == 502


def test_host_field_and_forwarded_fields_are_the_clients(
    minato: StartMinato, origin: MakeOrigin, authority: Authority
) -> None:
    app = origin(tls=authority.server("127.0.0.1"))
    assert fetch(minato(app, env=authority.env).port).status == 200
    request = app.requests[0]
    assert request.get(b"host") == b"test.local"
    assert request.get(b"x-forwarded-proto") == b"http"  # how the client came, not how the upstream is reached
