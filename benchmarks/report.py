"""Turns samples into medians, and medians into latest.md, latest.json and latest.png."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import targets
from medians import Median, Samples, median_of, medians_of, ratio
from peers import LABELS, PEERS
from tables import FIGURES, figures, megabytes, shown, shown_errors, table
from works import WORKS, Group, Work

_NOTES = """\
CPU: user and system time of all the proxy's processes, from /proc, per request answered; the figure to compare, since
requests/s also contain what wrk and the origin take of the same cores. "minato : peer" below 1 means that minato takes
less. Kernels with IRQ time accounting charge softirqs, and so a part of the network stack's work, to no process:
"softirq" is what the whole machine (wrk, proxy, origin) spent there per request. Figures are medians of the rounds;
"spread" is (largest - smallest) / median of the CPU figure. Memory is the proportional set size of all the proxy's
processes right after the run. All peers run with 2 processes or threads (but Varnish, which takes a thread per request
under way: 2 pools of them), in front of the same nginx with one process; wrk has one thread. "errors" are wrk's, and
ours: an answer other than expected, "cache hits" that reached the origin (misses). "-": the peer does not do this work,
or the figure could not be had.
"""
_IDLE_NOTES = """\
Each to an instance started for it alone, that had served 100 connections: a process that did more before gives idle
connections the memory it freed, and they seem to cost nothing. What all processes' proportional set size grew by, per
connection; the kernel's part is not counted.
"""


class Report:
    """The Markdown text, section by section."""

    def __init__(self, about: Mapping[str, str], samples: Samples, left_out: Mapping[str, str]) -> None:
        self._about = about
        self._left_out = left_out
        self._medians = medians_of(samples)
        self._peers = [peer.name for peer in PEERS if any(name == peer.name for _, name in samples)]
        self._works = [work for work in WORKS if any(name == work.name for name, _ in samples)]

    def text(self, name: str) -> str:
        parts = ["# minato and its peers, side by side\n", self._machine(), self._who_is_missing()]
        if self._of(Group.MAIN):
            parts += [f"![CPU time per request, by work and peer]({name}.png)\n", "## CPU µs per request\n"]
            parts += [self._summary(), _NOTES]
        parts += self._targets()
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
        return table(head, (self._summary_row(work, others) for work in self._of(Group.MAIN)))

    def _summary_row(self, work: Work, others: Sequence[str]) -> list[str]:
        row = [work.title]
        for peer in self._peers:
            median = self._medians.get((work.name, peer))
            row.append(shown(median.cpu_us) + (" (errors)" if median.errors else "") if median else "-")
        return row + [shown(ratio(self._cpu(work, "minato"), self._cpu(work, peer)), ".2f") for peer in others]

    def _details(self, work: Work) -> list[str]:
        head = ("peer", *FIGURES)
        ratios = ("minato : peer, CPU", "minato : peer, requests/s", "errors")
        ours = self._medians.get((work.name, "minato"))
        rows = []
        for peer in self._peers:
            median = self._medians.get((work.name, peer))
            if median:
                cpu = ratio(ours.cpu_us if ours else None, median.cpu_us)
                rate = ratio(ours.rate if ours else None, median.rate)
                last = (shown(cpu, ".2f"), shown(rate, ".2f"), shown_errors(median.errors))
                rows.append((LABELS[peer], *figures(median), *last))
        return [f"### {work.title[0].upper()}{work.title[1:]}\n", table((*head, *ratios), rows)]

    def _scaling(self, group: Group) -> list[str]:
        works = [work for work in self._of(group) if (work.name, "minato") in self._medians]
        if not works:
            return []
        first = self._cpu(works[0], "minato")
        flat_head = ("flat (within 10 %)",) if group.is_to_be_flat else ()
        rows = []
        for work in works:
            median = self._medians[work.name, "minato"]
            cost = ratio(median.cpu_us, first)
            flat = ("-" if cost is None else "yes" if cost <= targets.FLAT else "no",) if group.is_to_be_flat else ()
            rows.append((work.title, *figures(median), shown(cost, ".2f"), *flat, shown_errors(median.errors)))
        return [f"## {group.value}\n", table(("minato", *FIGURES, "CPU : first", *flat_head, "errors"), rows)]

    def _targets(self) -> list[str]:
        outcomes = [outcome for outcome in targets.compare(self._medians) if outcome.figure is not None]
        if not outcomes:
            return []
        head = ("target", "what is compared", "at most", "measured", "verdict")
        return ["## Targets\n", table(head, map(_target_row, outcomes))]

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
            parts += [f"### {work.title[0].upper()}{work.title[1:]}\n", table(head, rows)]
        return [f"## {Group.IDLE.value}\n", _IDLE_NOTES, *parts] if parts else []


def _target_row(outcome: targets.Outcome) -> tuple[str, ...]:
    form = ",.0f" if outcome.limit > 100 else ".2f"
    return (
        outcome.title,
        outcome.measure,
        shown(outcome.limit, form),
        shown(outcome.figure, form),
        outcome.verdict,
    )


def _idle_row(label: str, median: Median, ours: Median | None) -> tuple[str, ...]:
    share = ratio(ours.connection_bytes if ours else None, median.connection_bytes)
    memory = (shown(median.connection_bytes, ",.0f"), megabytes(median), shown(share, ".2f"))
    return (label, f"{median.connections:,}", *memory, shown_errors(median.errors))


def _as_json(about: Mapping[str, str], samples: Samples, left_out: Mapping[str, str]) -> str:
    cells = [
        {
            "work": work,
            "peer": peer,
            "median": asdict(median_of(runs)),
            "samples": [asdict(sample) for sample in runs],
        }
        for (work, peer), runs in samples.items()
    ]
    outcomes = [asdict(outcome) | {"verdict": outcome.verdict} for outcome in targets.compare(medians_of(samples))]
    series = {"machine": dict(about), "left_out": dict(left_out), "targets": outcomes, "results": cells}
    return json.dumps(series, indent=1) + "\n"


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
