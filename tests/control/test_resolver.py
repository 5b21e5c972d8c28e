"""The resolver's threads: bounded, never two questions for one name, and nobody waits for them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from minato.control.resolver import MAX_THREADS, Answer, Resolver, look_up
from tests.system.harness.waiting import wait_until


class Gate:
    """A lookup that hangs until it is opened, and knows who asks."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        assert self._open.wait(30)
        return ["10.0.0.1"]

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()


def answers_of(resolver: Resolver, count: int = 1) -> list[Answer]:
    answers: list[Answer] = []
    wait_until(lambda: answers.extend(resolver.take()) or len(answers) >= count, "answers")
    return answers


def failing(error: Exception) -> Callable[[str], list[str]]:
    def fail(host: str) -> list[str]:
        raise error

    return fail


def test_answer_comes_with_the_name() -> None:
    resolver = Resolver(lambda host: ["10.0.0.2", "10.0.0.1"])
    resolver.ask("app.test")
    assert answers_of(resolver) == [Answer("app.test", ("10.0.0.2", "10.0.0.1"), "no address")]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (OSError("odd"), "odd"),
        (UnicodeError("odder"), "UnicodeError: odder"),
    ],
)
def test_failure_is_an_answer_with_its_reason_and_the_name_may_be_asked_for_again(
    error: Exception, reason: str
) -> None:
    resolver = Resolver(failing(error))
    for _ in range(2):
        resolver.ask("app.test")
        assert answers_of(resolver) == [Answer("app.test", (), reason)]


def test_name_is_asked_for_once_at_a_time(gate: Gate) -> None:
    resolver = Resolver(gate)
    for _ in range(3):
        resolver.ask("app.test")
    gate.open()
    answers_of(resolver)
    assert gate.asked == ["app.test"]


def test_resolver_that_hangs_takes_no_more_than_the_threads_there_may_be(gate: Gate) -> None:
    resolver = Resolver(gate)
    before = threading.active_count()
    names = [f"{number}.test" for number in range(3 * MAX_THREADS)]
    for name in names:
        resolver.ask(name)
    wait_until(lambda: len(gate.asked) == MAX_THREADS, "all threads ask")
    assert threading.active_count() == before + MAX_THREADS
    gate.open()
    assert sorted(answer.host for answer in answers_of(resolver, len(names))) == sorted(names)


def test_one_that_hangs_does_not_hold_up_another(gate: Gate) -> None:
    resolver = Resolver(lambda host: gate(host) if host == "hangs.test" else ["10.0.0.2"])
    resolver.ask("hangs.test")
    resolver.ask("quick.test")
    assert [answer.host for answer in answers_of(resolver)] == ["quick.test"]


def test_threads_are_used_again() -> None:
    resolver = Resolver(lambda host: ["10.0.0.1"])
    before = threading.active_count()
    for number in range(20):
        resolver.ask(f"{number}.test")
        answers_of(resolver)
    assert threading.active_count() == before + 1


def test_no_thread_to_be_had_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(lambda host: ["10.0.0.1"])

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    resolver.ask("app.test")
    assert resolver.take() == [Answer("app.test", (), "can't start new thread")]
    resolver.ask("app.test")
    assert len(resolver.take()) == 1


def test_system_is_asked_with_bytes_and_scopes_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 0)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%eth0", 0, 0, 3)),
    ]
    asked: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: asked.append(args) or found)
    assert look_up("app.test") == ["10.0.0.1", "2001:db8::1", "fe80::1%3"]
    assert asked == [(b"app.test", None)]
