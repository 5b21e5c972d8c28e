"""Asks the system's resolver for names on a bounded number of threads, so that nobody waits for it."""

from __future__ import annotations

import contextlib
import queue
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_THREADS = 16

Lookup = Callable[[str], Sequence[str]]
"""Returns the addresses of a name, in any order; raises OSError where there are none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a question ended: with addresses, or with the reason why there are none."""

    host: str
    addresses: tuple[str, ...]
    reason: str = ""


class Resolver:
    """Questions go in, answers come out, each name asked for once at a time; getaddrinfo has no timeout of its own.

    The threads take no lock that anybody else takes, and do nothing but ask. A worker that is forked meanwhile gets a
    copy of whatever lock libc's resolver holds at that moment, and never asks for a name itself.

    A resolver that hangs for ever takes a thread for each name it hangs for, up to all that there may be. Then no name
    is asked for any more.
    """

    def __init__(self, lookup: Lookup | None = None) -> None:
        self._lookup = lookup or look_up
        self._questions: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._answers: deque[Answer] = deque()
        self._asking: set[str] = set()
        self._threads = 0

    def __repr__(self) -> str:
        return f"<Resolver {len(self._asking)} under way, {self._threads} threads>"

    def ask(self, host: str) -> None:
        """Ask for a name, unless that is under way."""
        if host in self._asking:
            return
        self._asking.add(host)
        if self._threads < min(len(self._asking), MAX_THREADS):
            try:
                threading.Thread(target=self._work, name="minato-resolve", daemon=True).start()
                self._threads += 1
            except RuntimeError as error:
                if not self._threads:
                    self._answers.append(Answer(host, (), str(error)))
                    return
        self._questions.put(host)

    def take(self) -> list[Answer]:
        """Return what was answered up to now."""
        answers = []
        while self._answers:
            answer = self._answers.popleft()
            self._asking.discard(answer.host)
            answers.append(answer)
        return answers

    def _work(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the master's main thread's
        while True:
            host = self._questions.get()
            self._answers.append(self._ask(host))

    def _ask(self, host: str) -> Answer:
        try:
            return Answer(host, tuple(self._lookup(host)), "no address")
        except OSError as error:
            return Answer(host, (), error.strerror or str(error))
        except Exception as error:
            return Answer(host, (), f"{type(error).__name__}: {error}")


def look_up(host: str) -> list[str]:
    """Return the addresses of a name by getaddrinfo: hosts file, DNS, whatever the system is set up for.

    Raises:
        OSError: there are none, or nobody knows.
    """
    # As bytes: for a str Python would import its idna codec here, on a thread, while the master may fork.
    found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    return [_render(family, sockaddr) for family, _, _, _, sockaddr in found]


def _render(family: int, sockaddr: tuple[object, ...]) -> str:
    """Return an address with the number of its scope, where it has one: names of interfaces may change."""
    address = str(sockaddr[0]).partition("%")[0]
    return f"{address}%{sockaddr[3]}" if family == socket.AF_INET6 and sockaddr[3] else address
