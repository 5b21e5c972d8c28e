"""A campaign: random cases until its time is up or one is found that is wrong; that one is made smaller and told."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.fuzzing.cases import Case, RequestCase, ResponseCase, random_case, request_entries, response_entries
from tests.fuzzing.rig import HOST, Rig, Seen
from tests.fuzzing.verdicts import judge

_PROBE_EVERY = 200
_MUCH_PATIENCE_S = 0.02
_RIG_LIFE = 200
_CACHE_EVERY = 5  # rigs one has a cache; in it there are only cases of responses, each asked for twice
_MINIMISE_S = 10.0
_PROBE = RequestCase((b"POST /probe HTTP/1.1\r\nHost: %b\r\nContent-Length: 5\r\n\r\nprobe" % HOST,))


@dataclass
class Found:
    """A case that is wrong, as small as it could be made; ``alone`` tells whether it is wrong in a fresh rig, too."""

    seed: int
    number: int
    express: bool
    cache: bool
    case: Case
    wrong: list[str]
    alone: bool

    def __str__(self) -> str:
        where = f"seed {self.seed}, case {self.number}, express={self.express}, cache={self.cache}"
        how = "" if self.alone else " (only behind the cases before it; not made smaller)"
        return f"{where}{how}\n{self.case}\n" + "\n".join(self.wrong)


@dataclass
class Campaign:
    """What was tried, and what was found. ``forwarded`` and ``refused`` tell how deep they went.

    Attributes:
        doubtful: what was wrong once and could not be had again, neither alone nor behind the same cases: on a machine
            that is busy the kernel may hand bytes over late, and the rig lets time pass too early then.
    """

    seed: int
    cases: int = 0
    found: list[Found] = field(default_factory=list)
    forwarded: int = 0
    refused: int = 0
    doubtful: list[Found] = field(default_factory=list)
    _before: list[Case] = field(default_factory=list)  # of the present rig

    def run(self, *, express: bool, seconds: float, most: int = 0) -> None:
        """Try cases for that long, ``most`` of them at the most (0: any number); ends early where one is wrong."""
        rng = random.Random(f"{self.seed} {express}")
        requests, responses = request_entries(), response_entries()
        deadline_s = time.monotonic() + seconds
        number = 0
        rigs = 0
        while time.monotonic() < deadline_s and not self.found and not (most and number >= most):
            rigs += 1
            with Rig(express=express, cache=rigs % _CACHE_EVERY == 0) as rig:
                self._before = []
                for _ in range(_RIG_LIFE):
                    case = random_case(rng, [] if rig.cache else requests, responses)
                    number += 1
                    self._try(rig, case, number)
                    if self.found or time.monotonic() >= deadline_s or (most and number >= most):
                        break

    def _try(self, rig: Rig, case: Case, number: int) -> None:
        seen = rig.run(case)
        wrong = judge(seen) + _judge_again(rig, seen)
        self.cases += 1
        self.forwarded += bool(seen.upstreams)
        self.refused += not seen.upstreams
        if not wrong and number % _PROBE_EVERY == 0:
            wrong = probe(rig)
        if wrong:
            self._hold(rig, Found(self.seed, number, rig.express, rig.cache, case, wrong, alone=True))
        self._before.append(case)

    def _hold(self, rig: Rig, found: Found) -> None:
        """Try again what was wrong, alone and behind the same cases, with more patience."""

        def judge_alone(case: Case) -> list[str]:
            return verdict(case, express=found.express, cache=found.cache)

        small = minimise(found.case, lambda one: bool(judge_alone(one)))
        if wrong := judge_alone(small):
            self.found.append(replace(found, case=small, wrong=wrong))
            return
        with Rig(express=rig.express, cache=rig.cache, patience_s=_MUCH_PATIENCE_S) as again:
            for case in self._before:
                again.run(case)
            seen = again.run(found.case)
            wrong = judge(seen) + _judge_again(again, seen) + probe(again)
        (self.found if wrong else self.doubtful).append(replace(found, wrong=wrong or found.wrong, alone=False))


def _judge_again(rig: Rig, seen: Seen) -> list[str]:
    """Where there is a cache, ask for the same once more."""
    return judge(rig.repeat(seen)) if rig.cache and isinstance(seen.case, ResponseCase) else []


def probe(rig: Rig) -> list[str]:
    """Return what is wrong with the answer to a request that is well-formed."""
    seen = rig.run(_PROBE)
    wrong = judge(seen)
    if not seen.client.startswith(b"HTTP/1.1 200 "):
        wrong.append(f"a well-formed request is answered with {seen.client[:200]!r}")
    return wrong


def verdict(case: Case, *, express: bool, cache: bool = False) -> list[str]:
    """Return what is wrong with a case in a fresh rig, followed by a probe."""
    with Rig(express=express, cache=cache, patience_s=_MUCH_PATIENCE_S) as rig:
        seen = rig.run(case)
        return judge(seen) + _judge_again(rig, seen) + probe(rig)


def minimise(case: Case, still_wrong: Callable[[Case], bool]) -> Case:
    """Return a smaller case that is wrong still: of fewer pieces and bytes; itself if it is not wrong alone."""
    deadline_s = time.monotonic() + _MINIMISE_S
    if not still_wrong(case):
        return case
    case = _first_wrong([_simpler(case)], still_wrong) or case
    size = max(1, len(case.wire) // 2)
    while size and time.monotonic() < deadline_s:
        at, before = 0, len(case.wire)
        while at < len(case.wire) and time.monotonic() < deadline_s:
            shorter = case.with_wire(case.wire[:at] + case.wire[at + size :])
            if still_wrong(shorter):
                case = shorter
            else:
                at += size
        size = size // 2 if len(case.wire) == before or size > 1 else size
    return case


def _simpler(case: Case) -> Case:
    if isinstance(case, RequestCase):
        return RequestCase((case.wire,), case.half_closes)
    return ResponseCase(case.methods, case.answers[:1], case.pipelined)


def _first_wrong(cases: list[Case], still_wrong: Callable[[Case], bool]) -> Case | None:
    return next((case for case in cases if still_wrong(case)), None)
