"""What the admin API asks about upstreams: the config says which there are, the health checker where they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from minato.config.model import Service, Upstream
from minato.control.drains import Drained
from minato.control.standings import UpstreamStatus


class StatusSource(Protocol):
    """What is needed of minato.control.health.HealthChecker."""

    def statuses(self) -> Sequence[UpstreamStatus]: ...


Drain = Callable[[Sequence[str], bool, Callable[[Drained], None]], None]
Current = Callable[[], Iterable[tuple[Service, Sequence[Upstream]]]]


class UpstreamDesk:
    """Answers for the upstreams of the config that serves."""

    def __init__(self, checker: StatusSource, current: Current, active: Callable[[str], int], drain: Drain) -> None:
        """Make a desk.

        Args:
            checker: knows where they stand.
            current: returns the services that serve with their upstreams, each address of a name one of its own.
            active: returns the exchanges in flight with an upstream, by key.
            drain: marks upstreams, then calls back.
        """
        self._drain = drain
        self._checker = checker
        self._current = current
        self._active = active

    def describe(self) -> list[dict[str, object]]:
        """Return what there is to tell of each service's upstreams, in the order of the config."""
        statuses = {status.key: status for status in self._checker.statuses()}
        return [
            self._describe(service, upstream, statuses[upstream.key])
            for service, upstreams in self._current()
            for upstream in upstreams
            if upstream.key in statuses
        ]

    def names(self) -> dict[str, list[str]]:
        """Return the keys of upstreams by what each may be called: URL, scheme with host and port, key."""
        names: dict[str, dict[str, None]] = {}
        for _, upstreams in self._current():
            for upstream in upstreams:
                for name in _names_of(upstream):
                    names.setdefault(name, {})[upstream.key] = None
        return {name: list(keys) for name, keys in names.items()}

    def mark_drain(self, keys: Sequence[str], on: bool, on_marked: Callable[[Drained], None]) -> None:
        """Have these upstreams get no new requests, or end that, then call back once."""
        self._drain(keys, on, on_marked)

    def _describe(self, service: Service, upstream: Upstream, status: UpstreamStatus) -> dict[str, object]:
        told: dict[str, object] = {
            "service": service.name,
            "url": upstream.url,
            "state": status.standing.name.lower(),
            "reason": status.reason,
            "active": self._active(upstream.key),
            "weight": upstream.weight,
            "backup": upstream.backup,
            "refused": status.outcomes.refused,
            "failed": status.outcomes.failed,
            "ejections": status.ejections,
        }
        if status.ejected_for_s is not None:
            told["ejected_for_s"] = round(status.ejected_for_s, 1)
        return told


def _names_of(upstream: Upstream) -> set[str]:
    """All addresses of a name are called by the name's own URL, too."""
    place = f"{upstream.scheme}://{upstream.authority}"
    written = upstream.url.removesuffix(f" [{upstream.address}]")
    names = {upstream.url, written, written.rstrip("/"), upstream.key, place}
    return names | {f"{place} [{upstream.address}]"} if upstream.address else names
