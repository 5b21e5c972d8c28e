"""Figures as text, and Markdown tables of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from measure import Sample
from medians import Median

FIGURES = (
    *("requests/s", "p50", "p99", "CPU µs/request", "user + system", "softirq µs/request", "spread"),
    "memory, MB",
)


def figures(median: Median) -> tuple[str, ...]:
    """One for each of FIGURES."""
    return (
        shown(median.rate, ",.0f"),
        shown_us(median.p50_us),
        shown_us(median.p99_us),
        shown(median.cpu_us),
        f"{shown(median.user_us)} + {shown(median.system_us)}",
        shown(median.softirq_us),
        "-" if median.spread is None else f"{median.spread:.0%}",
        megabytes(median),
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is text, the others are figures."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows]) + "\n"


def shown(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else format(value, form)


def shown_us(value: float | None) -> str:
    """Microseconds, in the unit that reads best."""
    if value is None:
        return "-"
    if value < 1_000:
        return f"{value:.0f} µs"
    return f"{value / 1e3:.1f} ms" if value < 1e6 else f"{value / 1e6:.2f} s"


def shown_errors(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count:,}" for kind, count in errors.items()) or "none"


def megabytes(median: Median) -> str:
    return shown(median.pss_kib / 1_024 if median.pss_kib is not None else None)


def one_line(sample: Sample) -> str:
    """For the terminal, while the series runs."""
    if sample.connection_bytes is not None:
        text = f"{sample.requests} open, {sample.connection_bytes:.0f} bytes each"
    else:
        text = f"{sample.rate:10,.0f}/s {shown(sample.cpu_us):>8} µs CPU, p99 {shown_us(sample.p99_us)}"
    return text if not sample.errors else f"{text}; errors: {shown_errors(sample.errors)}"
