"""Whatever fails leaves a line that says why, also when nothing else could have been tried."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import pytest

from minato.config.model import Limits
from minato.shared.board import Counter
from tests.net.proxy import Entries, OriginMaker, ProxyMaker, hello, refused_port
from tests.system.harness import OriginConnection, Truncated, request_bytes, wait_until
from tests.system.harness.origin import respond_always


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def after_request(what: Callable[[OriginConnection], None]) -> Callable[[OriginConnection], None]:
    def script(connection: OriginConnection) -> None:
        if connection.read_request() is not None:
            what(connection)

    return script


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize(
    ("script", "why"),
    [
        (after_request(lambda connection: connection.send(b"garbage\r\n\r\n")), "a malformed status line"),
        (after_request(lambda connection: None), ""),
        (after_request(OriginConnection.reset), "reset"),
        (after_request(lambda connection: connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")), ""),
    ],
    ids=["garbage", "no answer", "reset", "cut"],
)
def test_a_failed_request_is_told_with_its_reason_when_there_is_no_other_upstream(
    origin: OriginMaker,
    proxy: ProxyMaker,
    caplog: pytest.LogCaptureFixture,
    method: bytes,
    script: Callable[[OriginConnection], None],
    why: str,
) -> None:
    there = origin(script)
    here = proxy(there)
    with here.client() as client:
        client.send(request_bytes(method, target=b"/told", body=b"x" if method == b"POST" else None))
        with contextlib.suppress(Truncated):
            assert client.receive().status == 502
    wait_until(lambda: here.counted(Counter.REQUESTS_ACTIVE) == 0, "the exchange's end")
    (told,) = warnings_of(caplog)
    assert f"http://127.0.0.1:{there.port}: " in told
    assert "/told" in told
    assert why in told


def test_a_refused_connection_is_told_when_there_is_no_other_upstream(
    proxy: ProxyMaker, caplog: pytest.LogCaptureFixture
) -> None:
    with refused_port() as dead:
        with proxy(dead).client() as client:
            assert client.request().status == 502
        (told,) = warnings_of(caplog)
        assert f"http://127.0.0.1:{dead}: connection refused" in told


def test_a_connection_over_the_limit_is_told_once_and_in_the_access_log_each_time(
    origin: OriginMaker, proxy: ProxyMaker, caplog: pytest.LogCaptureFixture
) -> None:
    log = Entries()
    here = proxy(origin(respond_always(hello())), limits=Limits(connections=1), access_log=log)
    with here.client() as first:
        first.request()
        for _ in range(3):
            with here.client() as surplus:
                assert surplus.receive().status == 503
        (told,) = warnings_of(caplog)
        assert "limits.connections" in told
        assert [(entry.status, entry.client) for entry in log.entries[1:]] == [(503, "127.0.0.1")] * 3
        assert all("too many connections" in entry.failure for entry in log.entries[1:])
        assert here.counted(Counter.RESPONSES_5XX) == 3
