"""Turns samples into medians, and medians into latest.md, latest.json and latest.png."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from measure import Sample
from peers import PEERS
from works import WORKS, Group, Work

Samples = Mapping[tuple[str, str], Sequence[Sample]]

LABELS = {
    "minato": "minato",
    "minato-h11": "minato, express: false",
    "nginx": "nginx",
    "haproxy": "HAProxy",
    "varnish": "Varnish",
    "caddy": "Caddy",
}
_FIGURES = ("requests/s", "p50", "p99", "CPU µs/request", "softirq µs/request", "spread", "memory, MB")
_NOTES = """\
CPU: user and system time of all the proxy's processes, from /proc, per request answered; the figure to compare, since
requests/s also contain what wrk and the origin take of the same cores. "minato : peer" below 1 means that minato takes
less. Kernels with IRQ time accounting charge softirqs, and so a part of the network stack's work, to no process:
"softirq" is what the whole machine (wrk, proxy, origin) spent there per request. Figures are medians of the rounds;
"spread" is (largest - smallest) / median of the CPU figure. Memory is the proportional set size of all the proxy's
processes right after the run. All peers run with 2 processes or threads (but Varnish, which takes a thread per request
under way: 2 pools of them), in front of the same nginx with one process; wrk has one thread. "errors" are wrk's, and
ours: an answer other than expected, "cache hits" that reached the origin (misses). "-": the peer does not do this work,
or the figure could not be had."""
_IDLE_NOTES = """\
Each to an instance started for it alone, that had served 100 connections: a process that did more before gives idle
connections the memory it freed, and they seem to cost nothing. What all processes' proportional set size grew by, per
connection; the kernel's part is not counted.
"""


@dataclass(frozen=True, slots=True)
class Median:
    """The samples of one work by one peer, summed up; see Sample for the units."""

    rate: float | None
    p50_us: float | None
    p99_us: float | None
    cpu_us: float | None
    softirq_us: float | None
    spread: float | None
    pss_kib: float | None
    connection_bytes: float | None
    connections: int
    errors: dict[str, int]


def median_of(samples: Sequence[Sample]) -> Median:
    errors: dict[str, int] = {}
    for sample in samples:
        for kind, count in sample.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    cpu = [sample.cpu_us for sample in samples if sample.cpu_us is not None]
    middle = _median(cpu)
    return Median(
        rate=_median(sample.rate for sample in samples),
        p50_us=_median(sample.p50_us for sample in samples),
        p99_us=_median(sample.p99_us for sample in samples),
        cpu_us=middle,
        softirq_us=_median(sample.softirq_us for sample in samples),
        spread=(max(cpu) - min(cpu)) / middle if middle else None,
        pss_kib=_median(sample.pss_kib for sample in samples),
        connection_bytes=_median(sample.connection_bytes for sample in samples),
        connections=min((sample.requests for sample in samples), default=0),
        errors=errors,
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def _shown(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else format(value, form)


def _shown_us(value: float | None) -> str:
    """Microseconds, in the unit that reads best."""
    if value is None:
        return "-"
    if value < 1_000:
        return f"{value:.0f} µs"
    return f"{value / 1e3:.1f} ms" if value < 1e6 else f"{value / 1e6:.2f} s"


def _shown_errors(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count:,}" for kind, count in errors.items()) or "none"


def one_line(sample: Sample) -> str:
    """For the terminal, while the series runs."""
    if sample.connection_bytes is not None:
        figures = f"{sample.requests} open, {sample.connection_bytes:.0f} bytes each"
    else:
        figures = f"{sample.rate:10,.0f}/s {_shown(sample.cpu_us):>8} µs CPU, p99 {_shown_us(sample.p99_us)}"
    return figures if not sample.errors else f"{figures}; errors: {_shown_errors(sample.errors)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is text, the others are figures."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows]) + "\n"


class Report:
    """The Markdown text, section by section."""

    def __init__(self, about: Mapping[str, str], samples: Samples, left_out: Mapping[str, str]) -> None:
        self._about = about
        self._left_out = left_out
        self._medians = {cell: median_of(series) for cell, series in samples.items()}
        self._peers = [peer.name for peer in PEERS if any(name == peer.name for _, name in samples)]
        self._works = [work for work in WORKS if any(name == work.name for name, _ in samples)]

    def text(self, name: str) -> str:
        parts = ["# minato and its peers, side by side\n", self._machine(), self._who_is_missing()]
        if self._of(Group.MAIN):
            parts += [f"![CPU time per request, by work and peer]({name}.png)\n", "## CPU µs per request\n"]
            parts += [self._summary(), _NOTES + "\n"]
            parts += [part for work in self._of(Group.MAIN) for part in self._details(work)]
        for group in (Group.SERVICES, Group.ENTRIES, Group.WORKERS):
            parts += self._scaling(group)
        parts += self._idle()
        return "\n".join(part for part in parts if part)

    def _of(self, group: Group) -> list[Work]:
        return [work for work in self._works if work.group is group]

    def _machine(self) -> str:
        return "; ".join(f"{label}: {value}" for label, value in self._about.items()) + ".\n"

    def _who_is_missing(self) -> str:
        lines = [f"- {who}: {why}" for who, why in self._left_out.items()]
        return "Left out:\n\n" + "\n".join(lines) + "\n" if lines else ""

    def _cpu(self, work: Work, peer: str) -> float | None:
        median = self._medians.get((work.name, peer))
        return median.cpu_us if median else None

    def _summary(self) -> str:
        others = [peer for peer in self._peers if peer != "minato"] if "minato" in self._peers else []
        head = ["work", *(LABELS[peer] for peer in self._peers), *(f"minato : {LABELS[peer]}" for peer in others)]
        return _table(head, (self._summary_row(work, others) for work in self._of(Group.MAIN)))

    def _summary_row(self, work: Work, others: Sequence[str]) -> list[str]:
        row = [work.title]
        for peer in self._peers:
            median = self._medians.get((work.name, peer))
            row.append(_shown(median.cpu_us) + (" (errors)" if median.errors else "") if median else "-")
        return row + [_shown(_ratio(self._cpu(work, "minato"), self._cpu(work, peer)), ".2f") for peer in others]

    def _details(self, work: Work) -> list[str]:
        head = ("peer", *_FIGURES)
        ratios = ("minato : peer, CPU", "minato : peer, requests/s", "errors")
        ours = self._medians.get((work.name, "minato"))
        rows = []
        for peer in self._peers:
            median = self._medians.get((work.name, peer))
            if median:
                cpu = _ratio(ours.cpu_us if ours else None, median.cpu_us)
                rate = _ratio(ours.rate if ours else None, median.rate)
                shown = (_shown(cpu, ".2f"), _shown(rate, ".2f"), _shown_errors(median.errors))
                rows.append((LABELS[peer], *_figures(median), *shown))
        return [f"### {work.title[0].upper()}{work.title[1:]}\n", _table((*head, *ratios), rows)]

    def _scaling(self, group: Group) -> list[str]:
        works = [work for work in self._of(group) if (work.name, "minato") in self._medians]
        if not works:
            return []
        head = ("minato", *_FIGURES, "CPU : first", "errors")
        first = self._cpu(works[0], "minato")
        rows = []
        for work in works:
            median = self._medians[work.name, "minato"]
            ratio = _shown(_ratio(median.cpu_us, first), ".2f")
            rows.append((work.title, *_figures(median), ratio, _shown_errors(median.errors)))
        return [f"## {group.value}\n", _table(head, rows)]

    def _idle(self) -> list[str]:
        head = ("peer", "kept open", "bytes per connection", "memory, MB", "minato : peer, bytes", "errors")
        parts = []
        for work in self._of(Group.IDLE):
            ours = self._medians.get((work.name, "minato"))
            rows = [
                _idle_row(LABELS[peer], self._medians[work.name, peer], ours)
                for peer in self._peers
                if (work.name, peer) in self._medians
            ]
            parts += [f"### {work.title[0].upper()}{work.title[1:]}\n", _table(head, rows)]
        return [f"## {Group.IDLE.value}\n", _IDLE_NOTES, *parts] if parts else []


def _idle_row(label: str, median: Median, ours: Median | None) -> tuple[str, ...]:
    ratio = _ratio(ours.connection_bytes if ours else None, median.connection_bytes)
    memory = (_shown(median.connection_bytes, ",.0f"), _megabytes(median), _shown(ratio, ".2f"))
    return (label, f"{median.connections:,}", *memory, _shown_errors(median.errors))


def _megabytes(median: Median) -> str:
    return _shown(median.pss_kib / 1_024 if median.pss_kib is not None else None)


def _figures(median: Median) -> tuple[str, ...]:
    return (
        _shown(median.rate, ",.0f"),
        _shown_us(median.p50_us),
        _shown_us(median.p99_us),
        _shown(median.cpu_us),
        _shown(median.softirq_us),
        "-" if median.spread is None else f"{median.spread:.0%}",
        _megabytes(median),
    )


def _as_json(about: Mapping[str, str], samples: Samples, left_out: Mapping[str, str]) -> str:
    cells = [
        {
            "work": work,
            "peer": peer,
            "median": asdict(median_of(series)),
            "samples": [asdict(sample) for sample in series],
        }
        for (work, peer), series in samples.items()
    ]
    return json.dumps({"machine": dict(about), "left_out": dict(left_out), "results": cells}, indent=1) + "\n"


def _draw(path: Path, samples: Samples) -> None:
    """A field per main work, a bar per peer; without such works no picture, not even that of an earlier series."""
    path.unlink(missing_ok=True)
    works = [work for work in WORKS if work.group is Group.MAIN and any(name == work.name for name, _ in samples)]
    if works:
        import plot  # noqa: PLC0415 (matplotlib takes a second, and not every run needs it)

        plot.draw(path, [(work.title, _bars(samples, work)) for work in works])


def _bars(samples: Samples, work: Work) -> dict[str, float]:
    medians = {LABELS[peer.name]: median_of(samples.get((work.name, peer.name), [])) for peer in PEERS}
    return {label: median.cpu_us for label, median in medians.items() if median.cpu_us is not None}


def write(
    directory: Path, name: str, about: Mapping[str, str], samples: Samples, left_out: Mapping[str, str]
) -> list[Path]:
    """The three files; returns their paths."""
    directory.mkdir(exist_ok=True)
    writers: dict[str, Callable[[Path], object]] = {
        "md": lambda path: path.write_text(Report(about, samples, left_out).text(name)),
        "json": lambda path: path.write_text(_as_json(about, samples, left_out)),
        "png": lambda path: _draw(path, samples),
    }
    paths = []
    for ending, writer in writers.items():
        path = directory / f"{name}.{ending}"
        writer(path)
        paths.append(path)
    return [path for path in paths if path.exists()]
