"""Interim responses, Expect and Upgrade: passed on to those that may have them, and only what was asked for.

RFC 9110, 7.8, 10.1.1 and 15.2.
"""

from __future__ import annotations

import re

import pytest

from tests.system.harness import Client
from tests.wire.table import GOT, LAST, OK, SEEN, Case, Wire, bad_gateway, got, names, refused, request, response, seen

VIA = b"via: 1.1 minato\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
GOT_CONTINUE = re.escape(b"HTTP/1.1 100 Continue\r\n" + VIA)
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X\r\nX: 1\r\n\r\n"
GOT_HINTS = re.escape(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n" + VIA)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"
WEBSOCKET = (b"Connection: keep-alive, Upgrade", b"Upgrade: websocket")
WEBSOCKET_SEEN = seen(more=[b"connection: upgrade", b"upgrade: websocket"])
POST = request(b"POST /x", b"Expect: 100-continue", b"Content-Length: 2", body=b"hi")


def interim(name: str, answer: bytes, passed: bytes) -> Case:
    return Case(name, request(), SEEN, passed + GOT, answer + OK)


def switch(name: str, answer: bytes, *lines: bytes, seen: bytes = WEBSOCKET_SEEN) -> Case:
    """A switch that is refused."""
    return bad_gateway(name, answer, sent=request(b"GET /x", *(lines or WEBSOCKET)), seen=seen)


CASES = [
    interim("103", HINTS, GOT_HINTS),
    interim(
        "102 and 103",
        b"HTTP/1.1 102 Processing\r\n\r\n" + HINTS,
        re.escape(b"HTTP/1.1 102 Processing\r\n" + VIA) + GOT_HINTS,
    ),
    interim("a 1xx of its own", b"HTTP/1.1 142 X\r\n\r\n", re.escape(b"HTTP/1.1 142 X\r\n" + VIA)),
    interim("a 100 that was not asked for", CONTINUE, GOT_CONTINUE),
    interim(
        "a length of nothing is dropped",
        b"HTTP/1.1 103 X\r\nContent-Length: 0\r\n\r\n",
        re.escape(b"HTTP/1.1 103 X\r\n" + VIA),
    ),
    interim("sixty-four", HINTS * 64, GOT_HINTS * 64),
    Case("sixty-five", request(), SEEN, GOT_HINTS * 64 + bad_gateway("", b"").got, HINTS * 65 + OK),
    Case("endless", request(), SEEN, GOT_HINTS * 64 + bad_gateway("", b"").got, HINTS * 2_000),
    bad_gateway("an interim response with a length", b"HTTP/1.1 103 X\r\nContent-Length: 5\r\n\r\nhello" + OK),
    bad_gateway(
        "an interim response with chunks", b"HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + OK
    ),
    bad_gateway("a 100 with a length", b"HTTP/1.1 100 X\r\nContent-Length: %d\r\n\r\n" % len(OK) + OK),
    # Expect.
    Case(
        "Expect and the body at once",
        POST,
        seen(b"POST /x", b"expect: 100-continue", more=[b"content-length: 2"], body=b"hi"),
    ),
    Case(
        "Expect in another case",
        request(b"POST /x", b"expect: 100-CONTINUE", b"Content-Length: 2", body=b"hi"),
        seen(b"POST /x", b"expect: 100-CONTINUE", more=[b"content-length: 2"], body=b"hi"),
    ),
    Case(
        "Expect and a 100",
        POST,
        seen(b"POST /x", b"expect: 100-continue", more=[b"content-length: 2"], body=b"hi"),
        GOT_CONTINUE + GOT,
        CONTINUE + OK,
    ),
    Case(
        "Expect and 417",
        POST,
        seen(b"POST /x", b"expect: 100-continue", more=[b"content-length: 2"], body=b"hi"),
        got(b"417 No", more=[b"content-length: 0"], body=b""),
        response(b"417 No", b"Content-Length: 0"),
    ),
    Case("Expect without a body", request(b"GET /x", b"Expect: 100-continue"), SEEN),
    Case(
        "Expect and a length of nothing",
        request(b"POST /x", b"Expect: 100-continue", b"Content-Length: 0"),
        seen(b"POST /x", more=[b"content-length: 0"]),
    ),
    Case(
        "an empty Expect",
        request(b"POST /x", b"Expect:", b"Content-Length: 2", body=b"hi"),
        seen(b"POST /x", more=[b"content-length: 2"], body=b"hi"),
    ),
    refused("an unknown expectation", request(b"GET /x", b"Expect: the-impossible"), b"417 Expectation Failed"),
    refused(
        "an unknown expectation beside the known",
        request(b"GET /x", b"Expect: 100-continue, more"),
        b"417 Expectation Failed",
    ),
    refused(
        "an expectation with a parameter", request(b"GET /x", b"Expect: 100-continue;q=1"), b"417 Expectation Failed"
    ),
    # Upgrade.
    Case("an upgrade that is not taken", request(b"GET /x", *WEBSOCKET), WEBSOCKET_SEEN),
    Case(
        "an upgrade on a choice of protocols",
        request(b"GET /x", b"Connection: upgrade", b"Upgrade: a/1, B"),
        seen(more=[b"connection: upgrade", b"upgrade: a/1, B"]),
    ),
    Case(
        "an upgrade and a wish for trailers",
        request(b"GET /x", b"Connection: upgrade, te", b"TE: trailers", b"Upgrade: a"),
        seen(more=[b"connection: te, upgrade", b"te: trailers", b"upgrade: a"]),
    ),
    Case(
        "an upgrade that expects a 100",
        request(b"GET /x", *WEBSOCKET, b"Expect: 100-continue"),
        WEBSOCKET_SEEN,
    ),
    Case(
        "an upgrade among empty members",
        request(b"GET /x", b"Connection: upgrade", b"Upgrade: , ,WebSocket ,", b"Upgrade:"),
        seen(more=[b"connection: upgrade", b"upgrade: WebSocket"]),
    ),
    Case(
        "an upgrade to what is no protocol is ignored",
        request(b"GET /x", b"Connection: upgrade", b'Upgrade: "a, b"'),
        SEEN,
    ),
    Case(
        "an upgrade to two words is ignored", request(b"GET /x", b"Connection: upgrade", b"Upgrade: web socket"), SEEN
    ),
    Case("an upgrade to an empty version is ignored", request(b"GET /x", b"Connection: upgrade", b"Upgrade: a/"), SEEN),
    Case(
        "an upgrade of a request with a length of nothing",  # kubectl exec, docker attach
        request(b"POST /x", b"Connection: Upgrade", b"Upgrade: SPDY/3.1", b"Content-Length: 0"),
        seen(b"POST /x", more=[b"connection: upgrade", b"upgrade: SPDY/3.1", b"content-length: 0"]),
    ),
    Case("an upgrade that Connection does not name", request(b"GET /x", b"Upgrade: websocket"), SEEN),
    Case("an upgrade to nothing", request(b"GET /x", b"Connection: upgrade"), SEEN),
    Case("an upgrade to h2c is ignored", request(b"GET /x", b"Connection: upgrade", b"Upgrade: h2c"), SEEN),
    Case(
        "an upgrade to h2c beside another is ignored",
        request(b"GET /x", b"Connection: upgrade", b"Upgrade: websocket, h2c"),
        SEEN,
    ),
    Case(
        "an upgrade to another HTTP is ignored", request(b"GET /x", b"Connection: upgrade", b"Upgrade: HTTP/2.0"), SEEN
    ),
    Case(
        "an upgrade of a request with a body is ignored",
        request(b"POST /x", *WEBSOCKET, b"Content-Length: 2", body=b"hi"),
        seen(b"POST /x", more=[b"content-length: 2"], body=b"hi"),
    ),
    Case(
        "an upgrade that is required",
        request(),
        SEEN,
        got(b"426 No", more=[b"upgrade: TLS/1.2, websocket", b"connection: upgrade", b"content-length: 2"]),
        response(b"426 No", b"Connection: Upgrade", b"Upgrade: TLS/1.2,, websocket", b"Content-Length: 2", body=b"ok"),
    ),
    Case(
        "an upgrade that is required ends here for HTTP/1.0",
        b"GET /x HTTP/1.0\r\nHost: test.local\r\nConnection: keep-alive\r\n\r\n",
        SEEN.replace(b"1.1 minato", b"1.0 minato"),
        got(b"426 No", more=[b"connection: keep-alive", b"content-length: 2"]),
        response(b"426 No", b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 2", body=b"ok"),
    ),
    Case(
        "an upgrade that is required, and a close, are one line",
        request(b"GET /x", b"Connection: close"),
        SEEN,
        got(b"426 No", more=[b"upgrade: websocket", b"connection: close, upgrade", b"content-length: 2"]),
        response(b"426 No", b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 2", body=b"ok"),
        goes_on=False,
    ),
    Case(
        "an upgrade that is required, and no protocol",
        request(),
        SEEN,
        got(b"426 No"),
        response(b"426 No", b"Connection: Upgrade", b"Upgrade: a b", b"Content-Length: 2", body=b"ok"),
    ),
    Case(
        "an upgrade that is offered with another response ends here",
        request(),
        SEEN,
        GOT,
        response(b"200 OK", b"Connection: Upgrade", b"Upgrade: h2,h2c", b"Content-Length: 2", body=b"ok"),
    ),
    bad_gateway("a switch that nobody asked for", SWITCH % b"websocket"),
    switch("a switch to another protocol", SWITCH % b"h2c"),
    switch("a switch to more protocols", SWITCH % b"websocket, h2c"),
    switch("a switch to nothing", SWITCH % b""),
    switch("a switch without Upgrade", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n"),
    switch("a switch without Connection", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
    switch("a switch with a length", (SWITCH % b"websocket")[:-2] + b"Content-Length: 5\r\n\r\nhello"),
    switch("a switch with chunks", (SWITCH % b"websocket")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    switch(
        "a switch after an upgrade that was ignored",
        SWITCH % b"h2c",
        b"Connection: upgrade",
        b"Upgrade: h2c",
        seen=SEEN,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_interim_expect_and_upgrade(wire: Wire, case: Case) -> None:
    wire.run(case)


@pytest.mark.parametrize("named", [b"websocket", b"WebSocket"])
def test_switch_to_what_was_asked_for_opens_a_tunnel_for_any_bytes(wire: Wire, named: bytes) -> None:
    """What the client sent behind its request goes through the tunnel; it is no request any more."""
    with wire.origin.recording(SWITCH % named + b"from the upstream", ends=True) as record:
        received = wire.talk([request(b"GET /x", *WEBSOCKET) + b"GET /evil HTTP/1.1\r\n\r\n"])
        assert received.startswith(
            b"HTTP/1.1 101 Switching Protocols\r\nvia: 1.1 minato\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
        )
        assert received.endswith(b"\r\n\r\nfrom the upstream")
        assert record.recorded().startswith(WEBSOCKET_SEEN)


def test_request_with_a_length_of_nothing_may_switch(wire: Wire) -> None:
    """As kubectl exec and docker attach do: Go gives every POST a length."""
    sent = request(b"POST /x", b"Connection: Upgrade", b"Upgrade: SPDY/3.1", b"Content-Length: 0")
    with wire.origin.recording(SWITCH % b"SPDY/3.1" + b"raw", ends=True):
        received = wire.talk([sent])
    assert received.startswith(b"HTTP/1.1 101 ") and received.endswith(b"\r\n\r\nraw")


def test_client_that_waits_for_a_100_gets_it_before_it_sends_its_body(wire: Wire) -> None:
    head = request(b"POST /x", b"Expect: 100-continue", b"Content-Length: 2")
    head_seen = seen(b"POST /x", b"expect: 100-continue", more=[b"content-length: 2"])
    with wire.origin.recording(head_answer=CONTINUE) as record, Client(wire.proxy.port) as client:
        client.send(head)
        assert client.receive_any_head().status == 100
        record.expect(head_seen)
        client.send(b"hi")
        assert client.receive().body == b"ok"
        record.expect(head_seen + b"hi")


def test_client_that_waits_for_a_100_may_get_a_final_response_instead(wire: Wire) -> None:
    """Its body, should it come nevertheless, is no request."""
    head = request(b"POST /x", b"Expect: 100-continue", b"Content-Length: %d" % len(LAST))
    refusal = response(b"403 Forbidden", b"Content-Length: 2", body=b"no")
    with wire.origin.recording(head_answer=refusal) as record, Client(wire.proxy.port) as client:
        client.send(head)
        assert re.match(
            got(b"403 Forbidden", more=[b"connection: close", b"content-length: 2"], body=b""),
            client.receive_any_head().raw_head,
        )
        client.send(LAST)
        assert client.read_to_end() == b"no"
        assert b"/last" not in record.settled()
