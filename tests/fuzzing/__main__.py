"""``make fuzz``: random cases for a while, through both codecs; tells what is wrong, ready for the corpus."""

from __future__ import annotations

import argparse
import logging
import random
import sys

from tests.fuzzing.campaign import Campaign


def main() -> int:
    """Return 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for both codecs together (default: 60)")
    parser.add_argument("--seed", type=int, default=None, help="to try again what a seed found (default: a new one)")
    parser.add_argument("--cases", type=int, default=0, help="at the most, for each codec (default: as time allows)")
    arguments = parser.parse_args()
    logging.getLogger("minato").propagate = False  # what it tells of hostile input is not of interest here
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    is_wrong = False
    for express in (True, False):
        campaign = Campaign(seed)
        campaign.run(express=express, seconds=arguments.seconds / 2, most=arguments.cases)
        print(f"seed {seed}, express={express}: {campaign.cases} cases, {campaign.forwarded} reached the upstream")
        for doubtful in campaign.doubtful:
            print(f"\nwrong once, but not again: {doubtful}")
        for found in campaign.found:
            is_wrong = True
            print(f"\nWRONG: {found}\nOnce it is mended, put it into tests/corpus/.")
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main())
