"""Runs the comparison: every work, by every peer, in interleaved rounds; writes the report. See `--help`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import machine
import report
from fleet import Fleet
from idle import measure_idle
from measure import Sample, measure, warm
from peers import ORIGIN, PEERS, OriginError, Peer, PeerError, find_program
from tables import one_line
from works import WORKS, Group, Work

_RESULTS = Path(__file__).resolve().parent / "results"
_WORK_NAMES = [work.name for work in WORKS]
_PEER_NAMES = [peer.name for peer in PEERS]
# Around a run of wrk: its start, the readings.
_OVERHEAD_S = 0.4
_IDLE_S = 5.0


@dataclass(slots=True)
class Series:
    """What was measured so far, who was left out and why, and whose caches were filled with what."""

    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    warmed: set[tuple[object, ...]] = field(default_factory=set)


def _names(text: str, known: Sequence[str]) -> list[str]:
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    for name in chosen:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name} is none of: {', '.join(known)}")
    return chosen


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("1 at least")
    return number


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(";")[0])
    parser.add_argument("--quick", action="store_true", help="the main works, 1 round of 1 s: under 2 minutes")
    parser.add_argument("--works", type=lambda text: _names(text, _WORK_NAMES), help=", ".join(_WORK_NAMES))
    parser.add_argument("--peers", type=lambda text: _names(text, _PEER_NAMES), help=", ".join(_PEER_NAMES))
    parser.add_argument("--rounds", type=_positive, help="default 5")
    parser.add_argument("--seconds", type=_positive, help="of each run; default 3")
    parser.add_argument(
        "--name", help="of the files in results/; default: latest for a whole series, partial for any other"
    )
    options = parser.parse_args(arguments)
    is_whole = not (options.quick or options.works or options.peers)
    options.name = options.name or ("latest" if is_whole else "partial")
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (1 if options.quick else 3)
    return options


def chosen_works(options: argparse.Namespace) -> list[Work]:
    if options.works:
        return [work for work in WORKS if work.name in options.works]
    return [work for work in WORKS if work.quick or not options.quick]


def does(peer: Peer, work: Work) -> bool:
    if work.is_cached and not peer.has_cache:
        return False
    return peer.name == "minato" or work.group.is_of_all_peers


def run_cell(fleet: Fleet, series: Series, peer: Peer, work: Work, seconds: int) -> Sample:
    """One peer's turn at one work.

    Raises:
        PeerError: the peer does not start or is gone.
    """
    if work.group is Group.IDLE:
        with fleet.fresh(peer, work.setup) as fresh:
            return measure_idle(fresh, work)
    instance = fleet.instance(peer, work.setup)
    asked = (peer.name, work.setup, work.path, work.script, work.warm_arguments)
    if work.is_cached and asked not in series.warmed:
        warm(instance, fleet.origin, work)
        series.warmed.add(asked)
    return measure(instance, fleet.origin, work, seconds)


def run_round(fleet: Fleet, series: Series, peers: Sequence[Peer], works: Sequence[Work], seconds: int) -> None:
    for work in works:
        for peer in peers:
            if not does(peer, work) or f"{peer.name}: {work.title}" in series.left_out:
                continue
            try:
                sample = run_cell(fleet, series, peer, work, seconds)
            except PeerError as error:
                print(error, file=sys.stderr)
                series.left_out[f"{peer.name}: {work.title}"] = str(error).partition("\n")[0].rstrip(":")
                continue
            series.samples.setdefault((work.name, peer.name), []).append(sample)
            print(f"  {work.name:18} {peer.name:11} {one_line(sample)}", flush=True)


def run(options: argparse.Namespace) -> Series:
    """All rounds. Each begins with another peer, so that nobody always comes after the same one."""
    series = Series()
    peers = []
    for peer in PEERS:
        if options.peers and peer.name not in options.peers:
            continue
        if find_program(peer.program):
            peers.append(peer)
        else:
            series.left_out[peer.name] = f"{peer.program} is not installed"
    works = chosen_works(options)
    print(f"at least {estimate_s(peers, works, options):.0f} s", flush=True)
    with Fleet() as fleet:
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", flush=True)
            first = number % max(1, len(peers))
            run_round(fleet, series, peers[first:] + peers[:first], works, options.seconds)
    return series


def estimate_s(peers: Sequence[Peer], works: Sequence[Work], options: argparse.Namespace) -> float:
    total = 0.0
    for work in works:
        cells = sum(does(peer, work) for peer in peers)
        once = _IDLE_S if work.group is Group.IDLE else options.seconds + _OVERHEAD_S
        total += cells * (once * options.rounds + 1.5 * work.is_cached)
    return total


def main() -> int:
    options = parse_arguments(sys.argv[1:])
    for program in (ORIGIN.program, "wrk"):
        if find_program(program) is None:
            sys.exit(f"compare.py: {program} is needed; on Debian and Ubuntu: apt-get install {program}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    about = machine.describe(PEERS)
    try:
        series = run(options)
    except KeyboardInterrupt:
        print("compare.py: stopped; nothing written", file=sys.stderr)
        return 130
    except (OriginError, PeerError) as error:  # a PeerError that gets here is the origin's, at its start
        sys.exit(f"compare.py: {error}")
    if not series.samples:
        sys.exit("compare.py: nothing was measured")
    about["measured in"] = f"{options.rounds} {'round' if options.rounds == 1 else 'rounds'} of {options.seconds} s"
    paths = report.write(_RESULTS, options.name, about, series.samples, series.left_out)
    print(
        f"{time.monotonic() - started:.0f} s; written: {', '.join(path.name for path in paths)} in benchmarks/results"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
