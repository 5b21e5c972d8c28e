"""What is told of the results: a table in Markdown, and of each failure what is needed to find its cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tests.chaos.judge import Held
from tests.chaos.ledger import Kind, Outcome
from tests.chaos.rig import Result

_MOST_FAILURES = 12
_HEAD = (
    "| meanwhile | target | requests | events, messages | told to close | closed early | races | excused"
    " | failed otherwise |\n|---|---|---:|---:|---:|---:|---:|---:|---:|"
)


def render_table(results: Iterable[Result]) -> str:
    """One line for each scenario and target."""
    return "\n".join([_HEAD, *(_row(result) for result in results)])


def _row(result: Result) -> str:
    ledger, verdict = result.ledger, result.verdict
    closes, races = (_count(verdict.failures, kind) for kind in (Kind.EARLY_CLOSE, Kind.RACE))
    cells = [
        result.scenario.tells,
        result.target,
        f"{ledger.requests:,}",
        f"{ledger.moves.total():,}",
        f"{ledger.told:,}",
        f"{closes:,}",
        f"{races:,}",
        f"{len(verdict.excused):,}",
        f"{len(verdict.failures) - closes - races:,}",
    ]
    return "| " + " | ".join(cells) + " |"


def _count(outcomes: Iterable[Outcome], kind: Kind) -> int:
    return sum(outcome.kind is kind for outcome in outcomes)


def render_reload_table(results: Sequence[Result]) -> str:
    """The storms, per 100 reloads, for whoever took part."""
    head = "| target | reloads | requests | closed early | races | failed otherwise | longest answer, ms |"
    rows = [head, "|---|---:|---:|---:|---:|---:|---:|"]
    for result in results:
        reloads = result.figures.get("reloads", 0)
        if not reloads or result.scenario.name != "storm":
            continue
        failures, per = result.verdict.failures, 100 / reloads
        closes, races = _count(failures, Kind.EARLY_CLOSE), _count(failures, Kind.RACE)
        cells = (
            result.target,
            f"{reloads:.0f}",
            f"{result.ledger.requests * per:,.0f}",
            f"{closes * per:,.0f}",
            f"{races * per:,.1f}",
            f"{(len(failures) - closes - races) * per:,.1f}",
            f"{_longest_ms(result):,.0f}",
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _longest_ms(result: Result) -> float:
    """The slowest request that went well; streams and tunnels take as long as they take."""
    long = [o for o in result.ledger.by_name.values() if o.kind is Kind.OK and o.client not in ("events", "tunnel")]
    return max((outcome.ended_s - outcome.begun_s for outcome in long), default=0.0) * 1e3


def render_line(result: Result) -> str:
    """One line while the campaign goes on."""
    ledger, verdict = result.ledger, result.verdict
    figures = "".join(f", {what} {number:,.0f}" for what, number in result.figures.items())
    word = "good" if result.is_good else "FAILED"
    return (
        f"{result.scenario.name:17} {result.target:9} {word}: {ledger.requests:,} requests in {result.seconds:.0f} s, "
        f"{ledger.moves.total():,} events and messages, {len(verdict.failures)} failures, "
        f"{len(verdict.excused)} excused; slowest {_longest_ms(result):.0f} ms, "
        f"our own lag {result.lag_s * 1e3:.0f} ms{figures}"
    )


def render_failures(result: Result) -> str:
    """All that is needed to look for the cause: failures, complaints, the end of the log, how to do it again."""
    kinds = Counter(f"{outcome.kind.value} ({outcome.client})" for outcome in result.verdict.failures)
    lines = [f"--- {result.scenario.name}, {result.target}, seed {result.seed}: {dict(kinds)}"]
    lines += [f"  {outcome} [{outcome.ended_s:.3f}]" for outcome in result.verdict.failures[:_MOST_FAILURES]]
    if len(result.verdict.failures) > _MOST_FAILURES:
        lines.append(f"  ... {len(result.verdict.failures)} in all")
    killed = [excuse for excuse in result.excuses if isinstance(excuse, Held)]
    lines += [f"  killed between {held.from_s:.3f} and {held.to_s:.3f}: {sorted(held.ports)}" for held in killed]
    lines += result.complaints
    lines += ["the end of its log:", *(f"  {line}" for line in result.log)]
    lines.append(
        f"again: python -m tests.chaos --seed {result.seed} --seconds {result.seconds:.0f} "
        f"--target {result.target} --scenarios {result.scenario.name}"
    )
    return "\n".join(lines)
