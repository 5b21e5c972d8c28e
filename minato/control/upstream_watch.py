"""One upstream under watch: when it is probed, and what results and refused connections make of its health."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

from minato.control.probe import Probe, ProbeTarget
from minato.decide.health import Health, ProbeResult, Transition, UpstreamHealth
from minato.net.loop import Loop

log = logging.getLogger("minato.health")

EXTRA_PROBE_GAP_S = 1.0
# A probe that is to come after a certain moment comes after it for sure: a tick of the loop, and one more.
LOOK_SLACK_S = 0.02
TELL_GAP_S = 10.0
# The second round begins up to this share of the interval early: all first rounds begin at once, later ones need not.
JITTER = 0.1

REFUSED = ProbeResult(False, "connection refused")


class UpstreamWatch:
    """Probes one upstream every interval, and at once after a refused connection.

    Attributes:
        key: Upstream.key.
        state: what is known of its health.
    """

    def __init__(
        self,
        loop: Loop,
        target: ProbeTarget,
        *,
        report: Callable[[UpstreamWatch, ProbeResult, Transition | None], None],
        rng: random.Random,
    ) -> None:
        """Make a watch that rests until ``start``.

        Args:
            loop: the health thread's.
            target: what to probe, and how.
            report: called after every result, with that and the change it brought about.
            rng: for the offset between the rounds of different upstreams.
        """
        self.key = target.upstream.key
        self.down_since_s = 0.0
        self._loop = loop
        self._target = target
        self._report = report
        self._health = UpstreamHealth(rise=target.config.rise, fall=target.config.fall)
        self._timer = loop.timer(self._begin_round)
        self._probe: Probe | None = None
        self._is_overdue = False
        self._first_gap = rng.uniform(1 - JITTER, 1)
        self._extra_from_s = 0.0
        self._tell_from_s = 0.0
        self._look_s = 0.0

    @property
    def state(self) -> Health:
        return self._health.state

    def snapshot(self) -> dict[str, object]:
        """Return what is known, in plain values, for the next master; seconds are of the machine's monotonic clock."""
        return {**self._health.snapshot(), "down_since_s": self.down_since_s + self._loop.paused_s}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from what the old master knew."""
        self._health.restore(snapshot)
        self.down_since_s = float(snapshot["down_since_s"]) - self._loop.paused_s

    def start(self) -> None:
        """Begin the first round in the loop's next turn."""
        self._timer.set(0.0)

    def retarget(self, target: ProbeTarget) -> None:
        """Probe another way from now on, at once if it differs; the state stays."""
        before, self._target = self._target, target
        self._health.set_thresholds(rise=target.config.rise, fall=target.config.fall)
        if (before.config, before.addresses) != (target.config, target.addresses):
            self._timer.set(0.0)

    def note_refused(self) -> None:
        """A worker's connection was refused: a failure, and a reason to look at once."""
        self._feed(REFUSED)
        self.probe_soon()

    def probe_soon(self) -> None:
        """Probe at once, but not again and again."""
        due_s = max(self._loop.now_s, self._extra_from_s)
        if due_s < self._timer.due_s:
            self._extra_from_s = due_s + EXTRA_PROBE_GAP_S
            self._timer.set(due_s - self._loop.now_s)

    def probe_at(self, mono_s: float) -> None:
        """Probe at that second, besides what is due anyway."""
        self._look_s = mono_s + LOOK_SLACK_S
        if self._look_s < self._timer.due_s:
            self._timer.set(self._look_s - self._loop.now_s)

    def stop(self) -> None:
        """Give up the probe in flight; begin no more."""
        self._timer.cancel()
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None

    def abandon(self) -> None:
        """In a forked child: close what was inherited, touch nothing that is the parent's."""
        if self._probe is not None:
            self._probe.abandon()

    def on_crash(self) -> None:
        """The loop caught an error that nobody foresaw, at the beginning of a round."""
        if self._probe is not None:
            self._probe.on_crash()

    def _begin_round(self) -> None:
        if self._probe is not None:
            self._is_overdue = True
            return
        self._is_overdue = False
        gap_s = self._target.config.interval_s * self._first_gap
        self._first_gap = 1.0
        if (look_in_s := self._look_s - self._loop.now_s) > 0:
            gap_s = min(gap_s, look_in_s)
        self._timer.set(gap_s)
        self._probe = Probe(self._loop, self._target, self._on_result)
        self._probe.start()

    def _on_result(self, result: ProbeResult) -> None:
        self._probe = None
        if self._is_overdue:
            self._timer.set(0.0)
        if result.is_ours:
            self._note_not_probed(result)
        else:
            self._feed(result)

    def _note_not_probed(self, result: ProbeResult) -> None:
        """This machine could not ask: the state stays what it was, and the next try is soon."""
        now_s = self._loop.now_s
        if now_s >= self._tell_from_s:
            self._tell_from_s = now_s + TELL_GAP_S
            log.error("cannot probe upstream %s from here: %s", self.key, result.reason)
        if self._timer.due_s > now_s + EXTRA_PROBE_GAP_S:
            self._timer.set(EXTRA_PROBE_GAP_S)

    def _feed(self, result: ProbeResult) -> None:
        self._report(self, result, self._health.feed(result))
