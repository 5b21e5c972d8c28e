"""One probe against real sockets: every way an upstream can fail has its reason, and none takes longer than it may."""

from __future__ import annotations

import errno
import os
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import trustme

from minato.config.model import HealthConfig, ProxyProtocol, Upstream
from minato.control.probe import Probe, ProbeTarget, make_tls_context
from minato.decide.health import ProbeResult
from minato.net.loop import Loop
from minato.net.resolve import ResolvedAddress
from tests.control.health_origin import (
    OK,
    QUICK,
    Behaviour,
    Origin,
    drip,
    full_listener,
    make_upstream,
    refusing_port,
    reset,
    resolved,
    respond,
    send_at_once,
    stay_silent,
)
from tests.system.harness.tls import heeds_alerts

MakeOrigin = Callable[..., Origin]


@pytest.fixture
def make_origin() -> Iterator[MakeOrigin]:
    origins: list[Origin] = []

    def make(behave: Behaviour | None = None, **options: object) -> Origin:
        origins.append(Origin(behave or respond(OK), **options))  # type: ignore[arg-type]
        return origins[-1]

    yield make
    for origin in origins:
        origin.stop()


def run_probe(
    upstream: Upstream,
    *addresses: ResolvedAddress,
    config: HealthConfig = QUICK,
    tls: ssl.SSLContext | None = None,
    limit_s: float = 10.0,
) -> ProbeResult:
    """Run one probe to its end; its socket must be gone and no second result may come."""
    loop = Loop()
    results: list[ProbeResult] = []
    probe = Probe(loop, ProbeTarget(upstream, addresses, config, tls), results.append)
    probe.start()
    give_up_s = time.monotonic() + limit_s
    while not results:
        assert time.monotonic() < give_up_s, "the probe hangs"
        loop.turn(0.1)
    assert not loop._handlers
    assert probe._sock is None
    loop.turn(0.0)
    assert len(results) == 1
    loop.close()
    return results[0]


def probe_origin(origin: Origin, **options: object) -> ProbeResult:
    return run_probe(origin.upstream(), origin.address, **options)  # type: ignore[arg-type]


def test_an_expected_answer_is_healthy_and_the_request_is_polite(make_origin: MakeOrigin) -> None:
    origin = make_origin()
    assert probe_origin(origin) == ProbeResult(True)
    head = origin.requests[0]
    assert head.startswith(b"GET /health HTTP/1.1\r\n")
    lines = {line.lower() for line in head.split(b"\r\n")}
    assert f"host: 127.0.0.1:{origin.port}".encode() in lines
    assert b"user-agent: minato-health" in lines
    assert b"connection: close" in lines


def test_a_refused_connection_is_a_failure() -> None:
    port = refusing_port()
    assert run_probe(make_upstream(port), resolved(port)) == ProbeResult(False, "connection refused")


def test_a_connection_that_never_comes_about_fails_after_tcp_timeout() -> None:
    with full_listener() as port:
        began_s = time.monotonic()
        result = run_probe(make_upstream(port), resolved(port))
    assert result == ProbeResult(False, "no connection within 0.3 s")
    assert time.monotonic() - began_s >= 0.3


@pytest.mark.parametrize("behave", [stay_silent, drip])
def test_http_timeout_is_for_the_whole_response_head(make_origin: MakeOrigin, behave: Behaviour) -> None:
    began_s = time.monotonic()
    assert probe_origin(make_origin(behave)) == ProbeResult(False, "no response within 0.4 s")
    assert time.monotonic() - began_s >= 0.4


def test_an_unexpected_status_is_a_failure(make_origin: MakeOrigin) -> None:
    result = probe_origin(make_origin(respond(b"HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n")))
    assert result == ProbeResult(False, "status 500, expected 200")


def test_expect_ranges_decide_what_is_healthy(make_origin: MakeOrigin) -> None:
    origin = make_origin(respond(b"HTTP/1.0 301 Moved\r\nLocation: /\r\n\r\n"))
    assert probe_origin(origin).ok is False
    assert probe_origin(origin, config=replace(QUICK, expect=((200, 299), (301, 302)))).ok is True


def test_interim_responses_are_passed_over(make_origin: MakeOrigin) -> None:
    assert probe_origin(make_origin(respond(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK))).ok


def test_a_head_in_single_bytes_is_read(make_origin: MakeOrigin) -> None:
    def trickle(origin: Origin, conn: socket.socket) -> None:
        origin.read_head(conn)
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in OK:
            conn.send(bytes([byte]))

    assert probe_origin(make_origin(trickle)).ok


def test_a_body_without_end_does_not_matter(make_origin: MakeOrigin) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert probe_origin(make_origin(send_at_once(head + b"5\r\nhello\r\n" * 10_000))).ok


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00\x01\x02 rubbish\r\n\r\n", "malformed response"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "malformed response"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "malformed response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "malformed response"),
        (b"", "connection closed unanswered"),
        (b"HTTP/1.1 200 OK\r\nConte", "connection closed within the response head"),
    ],
)
def test_a_malformed_or_cut_response_is_a_failure(make_origin: MakeOrigin, data: bytes, reason: str) -> None:
    result = probe_origin(make_origin(respond(data)))
    assert not result.ok
    assert result.reason.startswith(reason)
    assert len(result.reason) <= 200


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000, b"HTTP/1.1 102 Processing\r\n\r\n" * 50_000],
)
def test_a_head_without_end_is_cut_off(make_origin: MakeOrigin, data: bytes) -> None:
    result = probe_origin(make_origin(send_at_once(data)), config=replace(QUICK, http_timeout_s=20.0))
    assert result == ProbeResult(False, "response head over 65536 bytes")


def test_a_reset_is_a_failure(make_origin: MakeOrigin) -> None:
    assert probe_origin(make_origin(reset)) == ProbeResult(False, "connection reset by peer")


def test_a_name_without_addresses_is_a_failure() -> None:
    assert run_probe(make_upstream(80)) == ProbeResult(False, "its name does not resolve")


def test_addresses_are_tried_in_order_until_one_is_healthy(make_origin: MakeOrigin) -> None:
    sick = make_origin(respond(b"HTTP/1.1 500 Sick\r\n\r\n"))
    well = make_origin()
    unused = make_origin()
    addresses = (resolved(refusing_port(), "::1"), sick.address, well.address, unused.address)
    assert run_probe(well.upstream(host="localhost"), *addresses).ok
    assert (sick.connections, well.connections, unused.connections) == (1, 1, 0)


def test_a_hanging_first_address_leaves_time_for_the_second(make_origin: MakeOrigin) -> None:
    origin = make_origin()
    with full_listener() as port:
        assert run_probe(origin.upstream(), resolved(port), origin.address).ok


def test_of_several_failures_the_one_that_came_furthest_is_told(make_origin: MakeOrigin) -> None:
    sick = make_origin(respond(b"HTTP/1.1 500 Sick\r\n\r\n"))
    result = run_probe(sick.upstream(), sick.address, resolved(refusing_port()))
    assert result == ProbeResult(False, "status 500, expected 200")


def test_many_hanging_addresses_take_no_longer_than_both_timeouts() -> None:
    with full_listener() as port:
        began_s = time.monotonic()
        result = run_probe(make_upstream(port), *[resolved(port)] * 20)
    assert not result.ok
    # 20 times tcp_timeout would be 6 s; both timeouts together are 0.7 s.
    assert time.monotonic() - began_s < 4


def test_no_file_descriptor_is_no_failure_of_the_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socket", fail)
    assert run_probe(make_upstream(80), resolved(80)) == ProbeResult(False, "too many open files", is_ours=True)


@pytest.mark.parametrize("scarce_first", [True, False])
def test_an_address_that_was_asked_counts_whatever_became_of_the_others(
    monkeypatch: pytest.MonkeyPatch, scarce_first: bool
) -> None:
    """So does an address that does not exist on this machine (IPv6 is off) beside one that refuses."""
    real = Probe._connect

    def connect(probe: Probe, address: ResolvedAddress) -> None:
        if address.sockaddr[1] == 1:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        real(probe, address)

    monkeypatch.setattr(Probe, "_connect", connect)
    addresses = [resolved(1), resolved(refusing_port())]
    result = run_probe(make_upstream(1), *(addresses if scarce_first else addresses[::-1]))
    assert (result.ok, result.is_ours) == (False, False)


def test_an_address_that_cannot_be_reached_is_a_failure() -> None:
    # The broadcast address: connect fails at once, before any event.
    result = run_probe(make_upstream(80), ResolvedAddress(socket.AF_INET, ("255.255.255.255", 80)))
    assert not result.ok


def test_a_bug_is_a_failure_of_this_probe_and_no_more(make_origin: MakeOrigin, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(probe: Probe, status: int) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(Probe, "_judge", fail)
    assert probe_origin(make_origin()) == ProbeResult(False, "internal error")


def test_a_cancelled_probe_gives_no_result(make_origin: MakeOrigin) -> None:
    origin = make_origin(stay_silent)
    loop = Loop()
    results: list[ProbeResult] = []
    probe = Probe(loop, ProbeTarget(origin.upstream(), (origin.address,), QUICK), results.append)
    probe.start()
    loop.turn(1.0)
    probe.cancel()
    give_up_s = time.monotonic() + 1
    while time.monotonic() < give_up_s and loop._ticks:
        loop.turn(0.1)
    assert results == []
    assert not loop._handlers
    loop.close()


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    ca = trustme.CA()
    ca_file = tmp_path_factory.mktemp("tls") / "ca.pem"
    ca.cert_pem.write_to_path(str(ca_file))
    return ca, ca_file


@pytest.fixture
def client_tls(authority: tuple[trustme.CA, Path], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[1]))
    return make_tls_context()


def server_tls(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context


def test_https_with_a_good_certificate_is_healthy_and_names_the_server(
    make_origin: MakeOrigin, authority: tuple[trustme.CA, Path], client_tls: ssl.SSLContext
) -> None:
    context = server_tls(authority[0], "origin.test")
    names: list[str | None] = []
    context.sni_callback = lambda sock, name, ctx: names.append(name)
    origin = make_origin(tls=context)
    upstream = origin.upstream(scheme="https", host="origin.test")
    assert run_probe(upstream, origin.address, tls=client_tls, config=replace(QUICK, http_timeout_s=5)).ok
    assert names == ["origin.test"]
    assert f"host: origin.test:{origin.port}".encode() in origin.requests[0].lower()


def test_https_ends_with_a_close_alert(
    make_origin: MakeOrigin, authority: tuple[trustme.CA, Path], client_tls: ssl.SSLContext
) -> None:
    ends: queue.Queue[bytes] = queue.Queue()

    def behave(origin: Origin, sock: socket.socket) -> None:
        assert isinstance(sock, ssl.SSLSocket)
        sock.suppress_ragged_eofs = False
        respond(OK)(origin, sock)
        ends.put(sock.recv(100))

    origin = make_origin(behave, tls=heeds_alerts(server_tls(authority[0], "127.0.0.1")))
    upstream = origin.upstream(scheme="https")
    assert run_probe(upstream, origin.address, tls=client_tls, config=replace(QUICK, http_timeout_s=5)).ok
    assert ends.get(timeout=5) == b""


def test_https_by_address_is_healthy_with_a_certificate_for_it(
    make_origin: MakeOrigin, authority: tuple[trustme.CA, Path], client_tls: ssl.SSLContext
) -> None:
    origin = make_origin(tls=server_tls(authority[0], "127.0.0.1"))
    upstream = origin.upstream(scheme="https")
    assert run_probe(upstream, origin.address, tls=client_tls, config=replace(QUICK, http_timeout_s=5)).ok


def test_https_with_a_certificate_for_another_name_is_a_failure(
    make_origin: MakeOrigin, authority: tuple[trustme.CA, Path], client_tls: ssl.SSLContext
) -> None:
    origin = make_origin(tls=server_tls(authority[0], "other.test"))
    upstream = origin.upstream(scheme="https", host="origin.test")
    result = run_probe(upstream, origin.address, tls=client_tls, config=replace(QUICK, http_timeout_s=5))
    assert result.reason.startswith("certificate verify failed: Hostname mismatch")
    assert origin.requests == []


def test_https_with_an_unknown_authority_is_a_failure(make_origin: MakeOrigin, client_tls: ssl.SSLContext) -> None:
    origin = make_origin(tls=server_tls(trustme.CA(), "127.0.0.1"))
    upstream = origin.upstream(scheme="https")
    result = run_probe(upstream, origin.address, tls=client_tls, config=replace(QUICK, http_timeout_s=5))
    assert result.reason.startswith("certificate verify failed: unable to get local issuer certificate")
    assert origin.requests == []


def test_https_against_plain_http_is_a_failure(make_origin: MakeOrigin, client_tls: ssl.SSLContext) -> None:
    origin = make_origin(send_at_once(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    result = run_probe(origin.upstream(scheme="https"), origin.address, tls=client_tls)
    assert result.reason.startswith("TLS: wrong version number")


def test_a_handshake_that_stops_is_cut_off_by_http_timeout(make_origin: MakeOrigin, client_tls: ssl.SSLContext) -> None:
    origin = make_origin(stay_silent)
    result = run_probe(origin.upstream(scheme="https"), origin.address, tls=client_tls)
    assert result == ProbeResult(False, "no TLS handshake within 0.4 s")


@pytest.mark.parametrize(
    ("version", "header"),
    [
        (ProxyProtocol.V1, b"PROXY UNKNOWN\r\n"),
        (ProxyProtocol.V2, b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"),
    ],
)
def test_a_probe_by_the_proxy_protocol_is_on_nobodys_behalf(version: ProxyProtocol, header: bytes) -> None:
    received = b""

    def answer() -> None:
        nonlocal received
        with listener.accept()[0] as sock:
            while not received.endswith(b"\r\n\r\n"):
                received += sock.recv(65_536)
            sock.sendall(OK)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        upstream = replace(make_upstream(port), proxy_protocol=version)
        result = run_probe(upstream, resolved(port))
        thread.join(10)
    assert result.ok
    assert received.startswith(header + b"GET ")
