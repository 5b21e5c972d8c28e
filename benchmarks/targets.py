"""What minato sets out to reach, as ratios between figures of one series, and which of it the series reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from medians import Medians, ratio
from peers import LABELS
from works import WORKS

# Work, peer, and the most that minato's CPU time per request may be, in that peer's.
_CPU = (
    ("hit", "haproxy", 1.0),
    ("hit-cookie", "nginx", 0.8),
    ("forward", "nginx", 1.1),
    ("browser", "nginx", 1.3),
    ("post", "nginx", 1.4),
    ("chunked", "nginx", 1.4),
    ("close", "nginx", 1.3),
    ("1m", "haproxy", 0.7),
)
# CPU µs per request of the original, written in Go, and of nginx 1.22 beside it: measured once, on 2 cores, with the
# works of this series. Only their ratio is used.
_GO_ORIGINAL_US = {
    "hit": (48.4, 25.7),
    "hit-cookie": (59.9, 31.3),
    "hit-10k": (60.3, 31.1),
    "hit-c1000": (51.4, 25.9),
    "forward": (148.0, 31.6),
    "browser": (175.0, 33.6),
    "post": (181.0, 32.9),
    "chunked": (173.0, 36.7),
    "close": (225.0, 54.6),
    "1m": (6423.0, 1016.0),
    "c1000": (190.0, 37.4),
}
_GO_SHARE = 1 / 3
# How much further from nginx 1000 connections may be than 64 are.
_CROWD = 1.25
# Cost that does not grow with the number of services or of stored responses: relative to the fewest.
FLAT = 1.10
_FLAT = (
    ("services-1", ("services-1000", "services-10000", "services-1000-all", "services-10000-all")),
    ("entries-100", ("entries-100000", "entries-100000-all")),
)
_IDLE_BYTES = 3_072
_TITLES = {work.name: work.title for work in WORKS}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A target held against the series.

    Attributes:
        title: the work, or what else it is about.
        measure: what is compared.
        limit: the most it may be.
        figure: what was measured; None if it was not.
        has_errors: whether a run that it depends on had errors, so that it counts for nothing.
    """

    title: str
    measure: str
    limit: float
    figure: float | None
    has_errors: bool

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return "not measured"
        if self.has_errors:
            return "errors"
        return "reached" if self.figure <= self.limit else "not reached"


def compare(medians: Medians) -> list[Outcome]:
    """Every target, in the report's order."""
    return [*_against_peers(medians), *_with_crowd(medians), *_against_original(medians), *_alone(medians)]


def _against_peers(medians: Medians) -> Iterator[Outcome]:
    for work, peer, limit in _CPU:
        cells = ((work, "minato"), (work, peer))
        figure, errors = _cpu_ratio(medians, *cells), _has_errors(medians, *cells)
        yield Outcome(_TITLES[work], f"CPU, minato : {LABELS[peer]}", limit, figure, errors)


def _with_crowd(medians: Medians) -> Iterator[Outcome]:
    cells = [(work, peer) for work in ("forward", "c1000") for peer in ("minato", "nginx")]
    few, many = _cpu_ratio(medians, *cells[:2]), _cpu_ratio(medians, *cells[2:])
    errors = _has_errors(medians, *cells)
    yield Outcome(_TITLES["c1000"], "CPU, minato : nginx, relative to 64 connections", _CROWD, ratio(many, few), errors)
    ours, theirs = (medians.get(cell) for cell in cells[2:])
    figure = ratio(ours.p99_us, theirs.p99_us) if ours and theirs else None
    yield Outcome(_TITLES["c1000"], "p99, minato : nginx", 1.0, figure, _has_errors(medians, *cells[2:]))


def _against_original(medians: Medians) -> Iterator[Outcome]:
    for work, (original_us, nginx_us) in _GO_ORIGINAL_US.items():
        cells = ((work, "minato"), (work, "nginx"))
        limit = _GO_SHARE * original_us / nginx_us
        measure = "CPU, minato : nginx, a third of the Go original's"
        yield Outcome(_TITLES[work], measure, limit, _cpu_ratio(medians, *cells), _has_errors(medians, *cells))


def _alone(medians: Medians) -> Iterator[Outcome]:
    for first, others in _FLAT:
        for work in others:
            cells = ((work, "minato"), (first, "minato"))
            figure, errors = _cpu_ratio(medians, *cells), _has_errors(medians, *cells)
            yield Outcome(_TITLES[work], f"CPU, relative to: {_TITLES[first]}", FLAT, figure, errors)
    idle = medians.get(("idle", "minato"))
    figure = idle.connection_bytes if idle else None
    yield Outcome("idle connection", "bytes", _IDLE_BYTES, figure, _has_errors(medians, ("idle", "minato")))


def _cpu_ratio(medians: Medians, ours: tuple[str, str], theirs: tuple[str, str]) -> float | None:
    if ours not in medians or theirs not in medians:
        return None
    return ratio(medians[ours].cpu_us, medians[theirs].cpu_us)


def _has_errors(medians: Medians, *cells: tuple[str, str]) -> bool:
    return any(medians[cell].errors for cell in cells if cell in medians)
