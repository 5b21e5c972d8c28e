"""Where every upstream stands, kept by what the health thread hears: publishes each change, and logs why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minato.config.model import PassiveHealthConfig
from minato.decide.fleet import REFUSES, Change, Fleet, Group, Verdict
from minato.decide.health import Health, ProbeResult
from minato.decide.outliers import ErrorRate, Outcomes
from minato.decide.standing import DrainedBy, EjectionRules, Standing

log = logging.getLogger("minato.health")

TELL_GAP_S = 10.0

_NOTHING = Outcomes()

Publish = Callable[[str, Standing, int], None]
"""Called with key, standing, and the machine's monotonic millisecond at which it came up again (0: never down)."""


@dataclass(frozen=True, slots=True)
class UpstreamStatus:
    """What there is to tell about one upstream.

    Attributes:
        reason: why it is not up; empty where it is.
        ejections: how many it has not made up for.
        ejected_for_s: how long it stays ejected at the least; None where it is not.
        services: the names of those that it serves.
        outcomes: what workers counted.
    """

    key: str
    standing: Standing
    reason: str
    ejections: int
    ejected_for_s: float | None
    services: tuple[str, ...]
    outcomes: Outcomes


@dataclass(slots=True)
class _Record:
    """What is noted of one upstream's failures."""

    rate: ErrorRate
    told_s: float = -TELL_GAP_S


class Standings:
    """Feeds the Fleet and acts on what it says. Runs under the health checker's lock, as all that calls it does."""

    def __init__(
        self,
        clock: Callable[[], float],
        publish: Publish,
        outcomes: Callable[[], Mapping[str, Outcomes]],
        on_ejected: Callable[[str, float], None],
        machine_ms: Callable[[float], int],
    ) -> None:
        """Begin without upstreams.

        Args:
            clock: monotonic seconds.
            publish: see there; called after every result, changed or not.
            outcomes: returns, by key, what workers counted up to now.
            on_ejected: called with the key of an upstream that was ejected, and the second from which on a probe that
                succeeds ends that.
            machine_ms: returns a second of that clock as a millisecond of the one that all processes share.
        """
        self._clock = clock
        self._machine_ms = machine_ms
        self._publish = publish
        self._outcomes = outcomes
        self._on_ejected = on_ejected
        self._fleet = Fleet()
        self._config = PassiveHealthConfig(consecutive=0)
        self._records: dict[str, _Record] = {}
        self._seen: Mapping[str, Outcomes] = {}

    @property
    def look_every_s(self) -> float | None:
        """How often the counts are to be read without anybody asking for it; None where that is of no use."""
        return self._config.window_s / 10 if self._config.is_on and self._config.error_rate else None

    def update(
        self,
        config: PassiveHealthConfig | None,
        keys: Iterable[str],
        groups: Sequence[Group] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """These are the upstreams and services from now on, and these the rules; None: those there are.

        ``names`` says of keys that are addresses of a name which that is.
        """
        before = self._config
        self._config = config = config or before
        rules = EjectionRules(
            config.is_on, config.eject_s, config.max_eject_s, config.max_ejected, window_s=config.window_s
        )
        self._fleet.update(rules, keys, self._fleet.groups if groups is None else groups, self._clock(), names)
        # Rates go on: what is counted for who is still here would never be enough where names change all the time. Only
        # where the window is another one, or another thing a failure, do they begin anew.
        known = self._records if (config.window_s, config.statuses) == (before.window_s, before.statuses) else {}
        self._records = {key: known.get(key) or _Record(ErrorRate(config.window_s)) for key in self._fleet}
        self._settle()

    # -- what is heard

    def on_result(self, key: str, health: Health, result: ProbeResult) -> None:
        """A probe had a result; ``health`` is what that makes of the upstream."""
        self._fleet.note_probe(
            key, health, ok=result.ok, drains=result.drains, reason=result.reason, now_s=self._clock()
        )
        self._settle(key)

    def on_known(self, health: Mapping[str, Health]) -> None:
        """Another master knew what the health of these upstreams is."""
        for key, known in health.items():
            self._fleet.note_known(key, known)
        # Once for all: while one is known and the others are not, its service would seem to have nobody else.
        self._settle()
        for key in health:
            self._publish_one(key)

    def on_refused(self, key: str, health: Health, result: ProbeResult) -> None:
        """A connection was refused, which was held against the upstream's health."""
        self._fleet.note_refused(key, health, result.reason, self._clock())
        self._settle(key)

    def look(self) -> dict[str, bool]:
        """Read the counts; return whose connections were refused, and whether that is held against their health."""
        now_s = self._clock()
        refused = {}
        seen, self._seen = self._seen, self._outcomes()
        for key, count in self._seen.items():
            record = self._records.get(key)
            if record is None:
                continue
            new = count.since(seen.get(key, _NOTHING))
            if new.refused:
                is_contradicted = self._fleet.is_contradicted(key, now_s)
                refused[key] = not is_contradicted
                if is_contradicted:
                    self._suspect(key, REFUSES, now_s)
            self._judge(key, record, new, now_s)
        self._settle()
        return refused

    def mark_drain(self, key: str, on: bool) -> None:
        """The admin API wants an upstream to drain, or not."""
        self._fleet.mark_drain(key, DrainedBy.ADMIN, on)
        self._settle()

    # -- what is asked

    def statuses(self) -> list[UpstreamStatus]:
        """Return all there is to tell, in the order of the config."""
        now_s = self._clock()
        outcomes = self._outcomes()
        return [self._status(key, outcomes.get(key, _NOTHING), now_s) for key in self._fleet]

    def open_by_service(self) -> dict[str, int]:
        """Return how many upstreams of each service get new requests."""
        return {group.name: self._fleet.open_in(group) for group in self._fleet.groups}

    def export(self) -> dict[str, dict[str, Any]]:
        """Return what the next master has to know: plain values for JSON, by key."""
        return self._fleet.export(self._clock())

    def inherit(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what another master exported, before its upstreams are known here."""
        self._fleet.inherit(state)

    # -- inside

    def _status(self, key: str, outcomes: Outcomes, now_s: float) -> UpstreamStatus:
        one = self._fleet[key]
        return UpstreamStatus(
            key=key,
            standing=one.standing,
            reason=one.reason,
            ejections=one.ejections,
            ejected_for_s=None if one.until_s is None else max(one.until_s - now_s, 0.0),
            services=tuple(dict.fromkeys(group.name for group in self._fleet.groups_of(key))),
            outcomes=outcomes,
        )

    def _judge(self, key: str, record: _Record, new: Outcomes, now_s: float) -> None:
        """Suspect an upstream of which too much failed."""
        config = self._config
        if not config.is_on:
            return
        if config.error_rate:
            record.rate.add(new.failed, new.answered, now_s)
            if record.rate.is_above(config.error_rate, config.min_requests):
                self._suspect(key, f"{record.rate.describe()} within {config.window_s:g} s", now_s)
                return
        if new.tripped and config.consecutive:
            self._suspect(key, f"{config.consecutive} failures in a row", now_s)

    def _suspect(self, key: str, reason: str, now_s: float) -> None:
        record = self._records[key]
        verdict = self._fleet.suspect(key, reason, now_s)
        if verdict in (Verdict.EJECTED, Verdict.NOT_OPEN):
            record.rate.clear()  # once it is back, what was before counts no more
        elif now_s - record.told_s >= TELL_GAP_S:
            record.told_s = now_s
            log.warning("upstream %s fails (%s), but is not ejected: %s", key, reason, verdict.value)

    def _settle(self, heard_of: str | None = None) -> None:
        """Act on what changed; publish the one that was heard of whether or not it did."""
        now_s = self._clock()
        changes = self._fleet.settle(now_s)
        if heard_of is not None:
            self._publish_one(heard_of)
        for change in changes:
            if change.key != heard_of:
                self._publish_one(change.key)
        for change in changes:
            self._tell(change, now_s)
            if change.after is Standing.EJECTED:
                self._on_ejected(change.key, now_s + change.lasts_s)

    def _publish_one(self, key: str) -> None:
        if key in self._records:
            one = self._fleet[key]
            self._publish(key, one.standing, self._machine_ms(one.recovered_s) if one.recovered_s else 0)

    def _tell(self, change: Change, now_s: float) -> None:
        """Log what is not the doing of active health alone: that is logged where its results are."""
        key, before, after = change.key, change.before, change.after
        if after is Standing.EJECTED:
            log.warning("upstream %s is ejected for %.4g s: %s", key, change.lasts_s, change.reason)
        elif after is Standing.DRAINING:
            log.info("upstream %s drains: %s", key, change.reason)
        elif after is Standing.UP and before is Standing.EJECTED:
            log.info(
                "upstream %s is back%s", key, f" early: {change.reason}" if change.reason else " after its ejection"
            )
        elif after is Standing.UP and before is Standing.DRAINING:
            log.info("upstream %s drains no more", key)
