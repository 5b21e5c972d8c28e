"""Names of upstreams to socket addresses: asked once, by the master, all names side by side and within a bound."""

from __future__ import annotations

import ipaddress
import logging
import queue
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minato.config.model import Config, Upstream

log = logging.getLogger("minato.resolve")

RESOLVE_TIMEOUT_S = 10.0
MAX_THREADS = 16

_Target = tuple[str, int]
_Answer = tuple["_Target", "tuple[ResolvedAddress, ...]", str]


@dataclass(frozen=True, slots=True)
class ResolvedAddress:
    """One socket address of an upstream.

    Attributes:
        family: ``socket.AF_INET`` or ``socket.AF_INET6``.
        sockaddr: what ``socket.connect`` takes for that family.
    """

    family: int
    sockaddr: tuple[Any, ...]


def resolve_upstreams(
    config: Config,
    known: Mapping[str, tuple[ResolvedAddress, ...]] | None = None,
    timeout_s: float = RESOLVE_TIMEOUT_S,
) -> dict[str, tuple[ResolvedAddress, ...]]:
    """Resolve every upstream of a config, in at most about ``timeout_s`` seconds.

    Args:
        config: the config whose upstreams are asked for.
        known: what an earlier config's upstreams resolved to; taken where a name does not resolve any more.
        timeout_s: how long the slowest name may take; seconds.

    Returns:
        The addresses by ``Upstream.key``, in the resolver's order of preference. A name that does not resolve has an
        empty tuple (nothing can be sent there) and is logged.
    """
    upstreams = {upstream.key: upstream for service in config.services for upstream in service.upstreams}
    answers = _resolve_targets({(upstream.host, upstream.port) for upstream in upstreams.values()}, timeout_s)
    return {key: _choose(upstream, answers, known or {}) for key, upstream in upstreams.items()}


def resolve_numeric(host: str, port: int) -> ResolvedAddress | None:
    """Return the address of a host that is an IP address already; None for a name. Never asks anybody."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    if version == 4:
        return ResolvedAddress(socket.AF_INET, (host, port))
    address, _, scope = host.partition("%")
    return ResolvedAddress(socket.AF_INET6, (address, port, 0, int(scope) if scope.isdigit() else 0))


def _choose(
    upstream: Upstream,
    answers: Mapping[_Target, tuple[tuple[ResolvedAddress, ...], str]],
    known: Mapping[str, tuple[ResolvedAddress, ...]],
) -> tuple[ResolvedAddress, ...]:
    addresses, failure = answers[upstream.host, upstream.port]
    if addresses:
        return addresses
    before = known.get(upstream.key, ())
    if before:
        log.warning("cannot resolve %s: %s; going on with what it was before", upstream.host, failure)
    else:
        log.error("cannot resolve %s: %s; %s gets no traffic", upstream.host, failure, upstream.url)
    return before


def _resolve_targets(targets: set[_Target], timeout_s: float) -> dict[_Target, tuple[tuple[ResolvedAddress, ...], str]]:
    """Answer numeric hosts at once, ask for names on threads: daemon threads, since getaddrinfo has no timeout."""
    results: dict[_Target, tuple[tuple[ResolvedAddress, ...], str]] = {}
    names: queue.SimpleQueue[_Target] = queue.SimpleQueue()
    for target in sorted(targets):
        numeric = resolve_numeric(*target)
        if numeric is not None:
            results[target] = ((numeric,), "")
        else:
            results[target] = ((), f"no answer within {timeout_s:g} s")
            names.put(target)
    answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
    waiting = names.qsize()
    for _ in range(min(waiting, MAX_THREADS)):
        threading.Thread(target=_ask, args=(names, answers), name="minato-resolve", daemon=True).start()
    deadline_s = time.monotonic() + timeout_s
    while waiting and (left_s := deadline_s - time.monotonic()) > 0:
        try:
            target, addresses, failure = answers.get(timeout=left_s)
        except queue.Empty:
            break
        results[target] = (addresses, failure)
        waiting -= 1
    return results


def _ask(names: queue.SimpleQueue[_Target], answers: queue.SimpleQueue[_Answer]) -> None:
    while True:
        try:
            target = names.get_nowait()
        except queue.Empty:
            return
        try:
            # As bytes: for a str Python would import its idna codec here, on a thread, while the master may fork.
            found = socket.getaddrinfo(target[0].encode("ascii"), target[1], type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answers.put((target, (), str(error)))
            continue
        addresses = dict.fromkeys(ResolvedAddress(entry[0], entry[4]) for entry in found)
        answers.put((target, tuple(addresses), "no address"))
