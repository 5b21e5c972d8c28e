"""The queue of signals: a flood of one kind is one signal, and what arrives while they are obeyed comes next time."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from minato.control.signals import SignalQueue
from minato.net.loop import Loop

CAUGHT = (signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN)


@pytest.fixture
def queue() -> Iterator[SignalQueue]:
    loop = Loop()
    handlers = {number: signal.getsignal(number) for number in CAUGHT}
    queue = SignalQueue(loop)
    queue.install(CAUGHT)
    yield queue
    queue.forget()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    loop.close()


def test_flood_of_reloads_is_one_reload_and_every_worker_more_is_one(queue: SignalQueue) -> None:
    for _ in range(300):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGUSR1)
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTTIN)
    assert queue.take_all() == [signal.SIGHUP, signal.SIGUSR1, *[signal.SIGTTIN] * 3]
    assert queue.take_all() == []


def test_signal_that_comes_while_others_are_obeyed_is_not_lost(queue: SignalQueue) -> None:
    os.kill(os.getpid(), signal.SIGHUP)
    taken = queue.take_all()
    os.kill(os.getpid(), signal.SIGHUP)
    assert taken == queue.take_all() == [signal.SIGHUP]
