"""What one client or one careless upstream writes must not decide what others get from the cache."""

from __future__ import annotations

import threading

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
