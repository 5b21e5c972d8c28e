"""What one client or one careless upstream writes must not decide what others get from the cache."""

from __future__ import annotations

import threading
from ipaddress import ip_network

import pytest

from tests.net.hit_support import CACHE, MAX_AGE, ask
from tests.net.proxy import OriginMaker, ProxyMaker, hello
from tests.system.harness import OriginConnection, request_bytes


def test_a_response_that_nominates_its_vary_is_not_for_everybody(origin: OriginMaker, proxy: ProxyMaker) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            body = b"for " + (request.get(b"cookie") or b"")
            connection.send(hello(body, MAX_AGE, b"Vary: Cookie", b"Connection: Vary"))

    with proxy(origin(script), cache=CACHE).client() as client:
        for name in (b"alice", b"bob", b"alice"):
            assert ask(client, request_bytes(fields=[(b"Cookie", name)]))[1] == b"for " + name


@pytest.mark.parametrize(
    "line",
    [b"Cache-Control: no-store", b"Minato-Cache-Control: no-store", b"Expires: 0", b"Age: 99", b"Pragma: no-cache"],
)
def test_a_response_that_nominates_what_forbids_to_keep_it_is_not_kept(
    origin: OriginMaker, proxy: ProxyMaker, line: bytes
) -> None:
    made = []

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            made.append(line)
            lifetime = [MAX_AGE] if line.startswith((b"Minato", b"Age")) else []
            modified = b"Last-Modified: Tue, 01 Dec 2015 00:00:00 GMT"
            fields = [*lifetime, line, modified, b"Connection: " + line.partition(b":")[0]]
            connection.send(hello(b"%d" % len(made), *fields))

    with proxy(origin(script), cache=CACHE).client() as client:
        assert [ask(client)[1] for _ in range(3)] == [b"1", b"2", b"3"]


def test_a_response_asked_for_before_a_change_is_not_kept_though_nobody_waits_for_it(
    origin: OriginMaker, proxy: ProxyMaker
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            if request.get(b"cache-control"):
                asked.set()
                assert go_on.wait(10)
                connection.send(hello(b"before", MAX_AGE))
            else:
                connection.send(hello(b"" if request.method == b"POST" else b"after", MAX_AGE))

    here = proxy(origin(script), cache=CACHE)
    with here.client() as slow, here.client() as client:
        slow.send(request_bytes(fields=[(b"Cache-Control", b"no-cache")]))
        assert asked.wait(10)
        ask(client, request_bytes(b"POST", body=b"x"))
        go_on.set()
        assert slow.receive().body == b"before"
        assert ask(client)[1] == b"after"


def tell_host(connection: OriginConnection) -> None:
    while (request := connection.read_request()) is not None:
        names = (b"host", b"x-forwarded-host", b"x-forwarded-port", b"x-host", b"x_device", b"x-http-method-override")
        body = b"|".join(request.get(name) or b"" for name in names)
        connection.send(hello(body, MAX_AGE, *([b"Vary: X-Device"] if request.target == b"/vary" else [])))


def get(host: bytes = b"test.local", target: bytes = b"/", *lines: bytes) -> bytes:
    return b"\r\n".join([b"GET %b HTTP/1.1" % target, b"Host: " + host, *lines, b"", b""])


ODD_SPELLINGS = [b"TeSt.LOCAL", b"test.local:80", b"test.local:080", b"test.local:", b"Test.local:00080"]


@pytest.mark.parametrize("express", [True, False])
@pytest.mark.parametrize("odd", ODD_SPELLINGS)
def test_a_host_that_is_spelt_oddly_is_answered_from_the_cache_and_never_stored(
    origin: OriginMaker, proxy: ProxyMaker, odd: bytes, express: bool
) -> None:
    there = origin(tell_host)
    with proxy(there, cache=CACHE, express=express).client() as client:
        for _ in range(3):
            head, body = ask(client, get(odd))
            assert body.startswith(odd + b"|")
            assert b"detail=request-host" in head
        assert ask(client, get())[1].startswith(b"test.local|")
        for _ in range(4):
            head, body = ask(client, get(odd))
            assert b"minato; hit" in head
            assert body.startswith(b"test.local|"), "it is the same resource"
    assert len(there.requests) == 4


def test_an_absolute_target_that_is_spelt_oddly_is_not_stored(origin: OriginMaker, proxy: ProxyMaker) -> None:
    with proxy(origin(tell_host), cache=CACHE).client() as client:
        assert ask(client, get(b"other", b"http://TEST.local/"))[1].startswith(b"TEST.local|")
        assert ask(client, get(b"other", b"http://test.local/"))[1].startswith(b"test.local|")
        assert b"minato; hit" in ask(client, get())[0]


def test_a_port_that_is_not_the_schemes_own_is_another_resource(origin: OriginMaker, proxy: ProxyMaker) -> None:
    with proxy(origin(tell_host), cache=CACHE).client() as client:
        for host in (b"test.local", b"test.local:8080", b"test.local:443"):
            assert ask(client, get(host))[1].startswith(host + b"|")
            assert b"minato; hit" in ask(client, get(host))[0]


def test_the_port_of_https_is_its_own_where_a_trusted_proxy_says_https(origin: OriginMaker, proxy: ProxyMaker) -> None:
    there = origin(tell_host)
    with proxy(there, cache=CACHE, trusted_proxies=(ip_network("127.0.0.0/8"),)).client() as client:
        ask(client, get(b"test.local", b"/", b"X-Forwarded-Proto: https"))
        assert b"minato; hit" in ask(client, get(b"test.local:443", b"/", b"X-Forwarded-Proto: https"))[0]
        assert b"minato; hit" not in ask(client, get(b"test.local:80", b"/", b"X-Forwarded-Proto: https"))[0]


def test_an_unsafe_request_with_the_default_port_changes_the_same_resource(
    origin: OriginMaker, proxy: ProxyMaker
) -> None:
    with proxy(origin(tell_host), cache=CACHE).client() as client:
        ask(client, get())
        ask(client, b"POST / HTTP/1.1\r\nHost: TEST.local:80\r\nContent-Length: 0\r\n\r\n")
        assert b"minato; hit" not in ask(client, get())[0]


def test_a_stale_response_is_not_freshened_by_the_answer_to_another_spelling(
    origin: OriginMaker, proxy: ProxyMaker
) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            link = b"Link: <http://%b/>" % (request.get(b"host") or b"")
            if request.get(b"if-none-match"):
                connection.send(b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n%b\r\n%b\r\n\r\n' % (MAX_AGE, link))
            else:
                connection.send(hello(b"x", b'ETag: "1"', b"Cache-Control: max-age=0", link))

    with proxy(origin(script), cache=CACHE).client() as client:
        ask(client, get())
        assert b"http://TEST.local/" in ask(client, get(b"TEST.local"))[0]
        head, _ = ask(client, get())
        assert b"fwd=stale" in head
        assert b"http://test.local/" in head


OVERRIDES = [
    *[b"X-HTTP-Method-Override: DELETE", b"X_Http_Method: DELETE", b"X-Original-URL: /admin", b"X-Rewrite-URL: /a"],
    *[b"X-Host: evil", b"x_host: evil", b"X-Original-Host: evil", b"X-Forwarded: x", b"Front-End-Https: on"],
]


@pytest.mark.parametrize("express", [True, False])
@pytest.mark.parametrize("line", OVERRIDES)
def test_a_request_that_may_mean_another_is_neither_stored_nor_answered_from_the_cache(
    origin: OriginMaker, proxy: ProxyMaker, line: bytes, express: bool
) -> None:
    there = origin(tell_host)
    with proxy(there, cache=CACHE, express=express).client() as client:
        for _ in range(5):
            assert b"fwd=bypass" in ask(client, get(b"test.local", b"/", line))[0]
        assert b"fwd=uri-miss; stored" in ask(client, get())[0]
        for _ in range(5):
            assert b"fwd=bypass" in ask(client, get(b"test.local", b"/", line))[0]
        assert b"minato; hit" in ask(client, get())[0]
    assert len(there.requests) == 11


@pytest.mark.parametrize("line", [b"X-Forwarded-Port: 1", b"X_Forwarded_Host: evil", b"Forwarded: host=evil"])
def test_what_is_not_forwarded_of_a_client_takes_nothing_from_it(
    origin: OriginMaker, proxy: ProxyMaker, line: bytes
) -> None:
    with proxy(origin(tell_host), cache=CACHE).client() as client:
        first = ask(client, get(b"test.local", b"/", line))[1]
        assert b"evil" not in first
        assert ask(client, get())[1] == first
        assert b"minato; hit" in ask(client, get(b"test.local", b"/", line))[0]


def test_what_a_trusted_proxy_says_of_the_request_is_in_the_key(origin: OriginMaker, proxy: ProxyMaker) -> None:
    there = origin(tell_host)
    with proxy(there, cache=CACHE, trusted_proxies=(ip_network("127.0.0.0/8"),)).client() as client:
        lines = [(b"X-Forwarded-Port: %d" % port, b"X-Forwarded-For: 192.0.2.%d" % port) for port in (1, 2)]
        for _ in range(3):
            for port, both in zip((b"1", b"2"), lines, strict=True):
                assert ask(client, get(b"test.local", b"/", *both))[1].split(b"|")[2] == port
        assert len(there.requests) == 2
        ask(client, b"POST / HTTP/1.1\r\nHost: test.local\r\nContent-Length: 0\r\n\r\n")
        assert b"minato; hit" not in ask(client, get(b"test.local", b"/", *lines[0]))[0]
        plain = ask(client, get())
        for line in (b"X_Forwarded_Port: 9", b"Forwarded: host=x"):  # which nobody is told of
            head, body = ask(client, get(b"test.local", b"/", line))
            assert b"minato; hit" in head
            assert body == plain[1]


def test_a_host_that_a_trusted_proxy_spells_oddly_is_not_stored(origin: OriginMaker, proxy: ProxyMaker) -> None:
    with proxy(origin(tell_host), cache=CACHE, trusted_proxies=(ip_network("127.0.0.0/8"),)).client() as client:
        odd = get(b"test.local", b"/", b"X-Forwarded-Host: EVIL.local")
        assert ask(client, odd)[1].split(b"|")[1] == b"EVIL.local"
        usual = get(b"test.local", b"/", b"X-Forwarded-Host: evil.local")
        assert ask(client, usual)[1].split(b"|")[1] == b"evil.local"
        assert b"minato; hit" in ask(client, odd)[0]


def test_a_name_that_a_server_may_take_for_one_in_vary_keeps_a_response_from_being_stored(
    origin: OriginMaker, proxy: ProxyMaker
) -> None:
    with proxy(origin(tell_host), cache=CACHE).client() as client:
        head, body = ask(client, get(b"test.local", b"/vary", b"X_Device: evil"))
        assert b"evil" in body
        assert b"detail=request-field" in head
        assert b"evil" not in ask(client, get(b"test.local", b"/vary"))[1]
        head, body = ask(client, get(b"test.local", b"/vary", b"X_Device: evil"))
        assert b"minato; hit" in head
