"""Accepting when descriptors run out, while listeners come and go."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from minato.net.bound import BoundListener
from minato.shared.board import Counter
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, hello
from tests.net.support import Clock
from tests.system.harness import Client, request_bytes
from tests.system.harness.origin import respond_always

GET = request_bytes()


class ScarceSocket(socket.socket):
    """A listening socket that fails for its first ``failures`` accepts: for want of a descriptor, or as told."""

    failures = 0
    code = errno.EMFILE
    tries = 0

    def __init__(self) -> None:
        super().__init__()
        self.exhausted = threading.Event()
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.setblocking(False)

    def _accept(self) -> tuple[int, object]:
        self.tries += 1
        if self.failures:
            self.failures -= 1
            self.exhausted.set()
            raise OSError(self.code, os.strerror(self.code))
        return super()._accept()


MakeListener = Callable[[Proxy], BoundListener]


@pytest.fixture
def listener() -> Iterator[MakeListener]:
    """Make further listeners of a proxy's service."""
    made: list[ScarceSocket] = []

    def make(here: Proxy) -> BoundListener:
        made.append(ScarceSocket())
        return BoundListener(here.config.services[0].listen, made[-1])

    yield make
    for sock in made:
        sock.close()


def run_out(here: Proxy, listener: MakeListener) -> BoundListener:
    """Let the server adopt a listener whose first accept finds no descriptor; return it, its client still waiting."""
    scarce = listener(here)
    assert isinstance(scarce.sock, ScarceSocket)
    scarce.sock.failures = 1
    here.call(lambda: here.server.adopt([scarce]))
    with Client(scarce.sock.getsockname()[1]):
        assert scarce.sock.exhausted.wait(5.0)
    here.call(lambda: None)
    return scarce


def test_a_listener_adopted_while_accepting_is_paused_waits_like_the_others(
    clock: Clock,
    origin: OriginMaker,
    proxy: ProxyMaker,
    listener: MakeListener,
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = proxy(origin(respond_always(hello())))
    scarce, adopted = run_out(here, listener), [listener(here), listener(here)]
    here.call(lambda: here.server.adopt(adopted))
    ports = [here.port, *(one.sock.getsockname()[1] for one in (scarce, *adopted))]
    clients = [Client(port) for port in ports]
    for client in clients:
        client.send(GET)
    for _ in range(3):
        here.call(lambda: None)
    assert here.counted(Counter.CONNECTIONS_ACCEPTED) == 0
    clock.advance(1.0)
    here.call(lambda: None)
    assert [client.receive().body for client in clients] == [b"hello"] * 4
    for client in clients:
        client.close()
    assert not [record for record in caplog.records if record.exc_info]


def test_a_listener_released_while_accepting_is_paused_is_not_taken_up_again(
    clock: Clock,
    origin: OriginMaker,
    proxy: ProxyMaker,
    listener: MakeListener,
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = proxy(origin(respond_always(hello())))
    scarce = run_out(here, listener)
    here.call(lambda: here.server.release([scarce]))
    with here.client() as client:
        client.send(GET)
        clock.advance(1.0)
        here.call(lambda: None)
        assert client.receive().body == b"hello"
    assert not [record for record in caplog.records if record.exc_info]


def adopt_failing(here: Proxy, listener: MakeListener, code: int, failures: int) -> ScarceSocket:
    failing = listener(here)
    assert isinstance(failing.sock, ScarceSocket)
    failing.sock.code, failing.sock.failures = code, failures
    here.call(lambda: here.server.adopt([failing]))
    return failing.sock


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOMEM])
def test_a_listener_that_is_broken_for_good_is_tried_now_and_then(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, listener: MakeListener, code: int
) -> None:
    """No busy loop: one try, and the next after a pause, and the others go on meanwhile after each."""
    here = proxy(origin(respond_always(hello())))
    broken = adopt_failing(here, listener, code, 1_000_000)
    with Client(broken.getsockname()[1]), here.client() as client:
        assert broken.exhausted.wait(5.0)
        for _ in range(20):
            here.call(lambda: None)
        assert broken.tries == 1
        client.send(GET)
        for tries in (2, 3):
            clock.advance(0.11)
            for _ in range(5):
                here.call(lambda: None)
            assert broken.tries == tries
        assert client.receive().body == b"hello"


def test_a_listener_that_somebody_else_has_shut_down_is_tried_no_more(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, listener: MakeListener
) -> None:
    here = proxy(origin(respond_always(hello())))
    ended = adopt_failing(here, listener, errno.EINVAL, 1_000_000)
    with Client(ended.getsockname()[1]), here.client() as client:
        assert ended.exhausted.wait(5.0)
        clock.advance(1.0)
        for _ in range(5):
            here.call(lambda: None)
        assert ended.tries == 1
        assert client.request().body == b"hello"


def test_connections_that_broke_while_they_waited_do_not_keep_others_waiting(
    origin: OriginMaker, proxy: ProxyMaker, listener: MakeListener
) -> None:
    here = proxy(origin(respond_always(hello())))
    broken = adopt_failing(here, listener, errno.ECONNABORTED, 40)
    with Client(broken.getsockname()[1]) as client:
        client.send(GET)
        assert client.receive().body == b"hello"


def test_idle_connections_to_upstreams_make_room_for_clients(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, listener: MakeListener
) -> None:
    there = origin(respond_always(hello()))
    here = proxy(there)
    with here.client() as client:
        client.send(GET)
        assert client.receive().body == b"hello"
    assert len(here.server._context.pool) == 1
    run_out(here, listener)
    assert len(here.server._context.pool) == 0


def test_running_out_again_and_again_is_told_once(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, listener: MakeListener, caplog: pytest.LogCaptureFixture
) -> None:
    here = proxy(origin(respond_always(hello())))
    scarce = adopt_failing(here, listener, errno.EMFILE, 10)
    with Client(scarce.getsockname()[1]) as client:
        client.send(GET)
        while scarce.failures:
            clock.advance(0.11)
            here.call(lambda: None)
        clock.advance(0.11)
        here.call(lambda: None)
        assert client.receive().body == b"hello"
    assert len([record for record in caplog.records if "cannot accept" in record.getMessage()]) == 1


def test_a_client_that_the_kernel_will_not_watch_is_let_go(
    clock: Clock,
    origin: OriginMaker,
    proxy: ProxyMaker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """epoll_ctl says ENOSPC when the user watches too many descriptors."""
    here = proxy(origin(respond_always(hello())))

    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        here.call(lambda: patch.setattr(here.loop, "add", refuse))
        with here.client() as client:
            assert client.is_closed()
        here.call(patch.undo)
    clock.advance(0.11)
    here.call(lambda: None)
    with here.client() as client:
        client.send(GET)
        assert client.receive().body == b"hello"
    assert not [record for record in caplog.records if record.exc_info]
