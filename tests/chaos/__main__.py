"""``make chaos``: verified load while everything around it goes wrong; exit status 1 if a request was lost."""

from __future__ import annotations

import argparse
import random
import sys

from tests.chaos.campaign import SCENARIOS, choose, run_campaign
from tests.chaos.report import render_failures, render_line, render_reload_table, render_table
from tests.chaos.rig import Result
from tests.chaos.targets import TARGETS


def main() -> int:
    """Return 1 where minato failed."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=210.0, help="for all scenarios together (default: 210)")
    parser.add_argument("--seed", type=int, default=None, help="to try again what a seed found (default: a new one)")
    parser.add_argument("--target", default="minato", help=f"one or several of {', '.join(TARGETS)} (default: minato)")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help=f"of {', '.join(SCENARIOS)} (default: all)")
    arguments = parser.parse_args()
    targets, names = arguments.target.split(","), arguments.scenarios.split(",")
    if unknown := [word for word in targets if word not in TARGETS] + [word for word in names if word not in SCENARIOS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    results = run_campaign(choose(targets, names), arguments.seconds, seed, _tell)
    print(f"\n{render_table(results)}")
    if "storm" in names:
        print(f"\nThe storm, per 100 reloads:\n\n{render_reload_table(results)}")
    failed = [result for result in results if result.target == "minato" and not result.is_good]
    for result in failed:
        print(f"\n{render_failures(result)}")
    return int(bool(failed))


def _tell(result: Result) -> None:
    print(render_line(result), flush=True)
    if result.complaints and result.target != "minato":
        print("\n".join(result.complaints), flush=True)


if __name__ == "__main__":
    sys.exit(main())
