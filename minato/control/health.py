"""The master's health thread: probes all upstreams side by side, hears of what workers count, publishes standings."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from minato.config.model import HealthConfig, PassiveHealthConfig, Upstream
from minato.control.probe import ProbeTarget, make_tls_context
from minato.control.standings import Publish, Standings, UpstreamStatus
from minato.control.upstream_watch import REFUSED, UpstreamWatch
from minato.decide.fleet import Group
from minato.decide.health import Health, ProbeResult, Transition
from minato.decide.outliers import Outcomes
from minato.errors import BootError
from minato.net.loop import Loop
from minato.net.resolve import ResolvedAddress

log = logging.getLogger("minato.health")

# Failures come in storms: counts are read at most this often.
SCAN_GAP_S = 0.02
# Between two turns the thread holds nothing for at least this long, so that a fork need not fight for the lock.
REST_S = 0.001
ERROR_REST_S = 0.1
# The thread looks at the clock this often at the least, so that time in which it did not run is known for that.
LOOK_S = 1.0
FIRST_ROUND_GRACE_S = 1.0

# What the kernel sends to the thread that did wrong stays open, for faulthandler to report.
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}


class HealthChecker:
    """Keeps watch over upstreams on a thread of its own.

    Every callback runs on that thread, with ``fork_lock`` held. The lock is reentrant; the thread holds it whenever it
    does anything but wait, and never while it waits. So the master forks, and changes what the callbacks look at
    (which boards there are), while it holds the lock itself::

        with checker.fork_lock:
            pid = os.fork()
        if pid == 0:
            checker.forget()

    Attributes:
        fork_lock: see above.
        wake_fd: an eventfd that outlives ``forget``; workers write it through ``wake``.
    """

    def __init__(
        self,
        config: HealthConfig,
        upstreams: Mapping[str, Upstream],
        addresses: Mapping[str, tuple[ResolvedAddress, ...]],
        *,
        publish: Publish,
        outcomes: Callable[[], Mapping[str, Outcomes]],
        rng: random.Random | None = None,
    ) -> None:
        """Make a checker that rests until ``start``.

        Args:
            config: intervals, timeouts, thresholds, expected statuses.
            upstreams: by Upstream.key.
            addresses: by Upstream.key; nothing is resolved here.
            publish: called with key, standing and since when it is up again, after every result (changed or not).
            outcomes: returns, by key, what workers counted up to now.
            rng: for the offsets between rounds.

        Raises:
            BootError: no file descriptors to be had.
        """
        self.fork_lock = threading.RLock()
        try:
            self._loop = Loop(forgives_pauses=True)
            self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError as error:
            raise BootError(f"cannot start the health checks: {(error.strerror or str(error)).lower()}") from error
        self._standings = Standings(
            lambda: self._loop.now_s, publish, outcomes, self._on_ejected, self._loop.machine_ms
        )
        self._rng = rng or random.Random()
        self._watches: dict[str, UpstreamWatch] = {}
        self._without_result: set[str] = set()
        self._adopted: dict[str, Any] = {}
        self._first_round = threading.Event()
        self._scan_timer = self._loop.timer(self._scan)
        self._scanned_s = 0.0
        self._is_woken = False
        self._thread = threading.Thread(target=self._run, name="minato-health", daemon=True)
        self._is_stopping = False
        self._is_closed = False
        self._loop.add(self.wake_fd, select.EPOLLIN, self._on_wake)
        self.update(config, upstreams, addresses)

    def start(self) -> None:
        """Start the thread and with it the first round.

        Raises:
            BootError: no thread to be had.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            raise BootError(f"cannot start the health checks: {error}") from error

    def update(
        self,
        config: HealthConfig,
        upstreams: Mapping[str, Upstream],
        addresses: Mapping[str, tuple[ResolvedAddress, ...]],
        groups: Sequence[Group] | None = None,
        passive: PassiveHealthConfig | None = None,
    ) -> None:
        """Watch these upstreams from now on: known ones keep their state, new ones begin their first round at once.

        While an old generation of workers still runs, pass the upstreams of both: what is left out is watched no more.

        Args:
            config: intervals, timeouts, thresholds, expected statuses.
            upstreams: by Upstream.key.
            addresses: by Upstream.key.
            groups: the services that they serve; None: those of the last time.
            passive: what failed requests do to them; None: what they did up to now, nothing at first.
        """
        with self.fork_lock:
            self._loop.refresh()  # timers are set by the loop's clock, which stood still while the thread waited
            self._round_bound_s = config.tcp_timeout_s + config.http_timeout_s
            tls = make_tls_context() if any(upstream.scheme == "https" for upstream in upstreams.values()) else None
            for key in self._watches.keys() - upstreams.keys():
                self._watches.pop(key).stop()
                self._without_result.discard(key)
            for key, upstream in upstreams.items():
                context = tls if upstream.scheme == "https" else None
                self._watch(ProbeTarget(upstream, addresses.get(key, ()), config, context))
            names = {key: replace(one, address="").key for key, one in upstreams.items() if one.address}
            self._standings.update(passive, upstreams, groups, names)
            self._standings.on_known({key: self._watches[key].state for key in self._watches if key in self._adopted})
            self._adopted.clear()  # what it says of others would be old when they come
            self._look_again()
            self._note_first_round()
        self.wake()

    def wait_first_round(self, timeout_s: float | None = None) -> bool:
        """Wait until every upstream has had a result, and tell whether it has.

        Args:
            timeout_s: seconds; 0 only asks; None waits as long as a round can take (tcp_timeout + http_timeout) and
                one second more.
        """
        if timeout_s is None:
            timeout_s = self._round_bound_s + FIRST_ROUND_GRACE_S
        return self._first_round.wait(timeout_s)

    def states(self) -> dict[str, Health]:
        """Return what is known of every upstream, by key."""
        with self.fork_lock:
            return {key: watch.state for key, watch in self._watches.items()}

    def export_health(self) -> dict[str, Any]:
        """Return what is known of every upstream, by key, in plain values, for the next master to ``adopt_health``.

        Besides what `UpstreamHealth.snapshot` says: ``standing``, which tells of ejections, drains and recoveries.
        """
        with self.fork_lock:
            self._loop.refresh()
            standings = self._standings.export()
            return {key: {**watch.snapshot(), "standing": standings.get(key)} for key, watch in self._watches.items()}

    def adopt_health(self, health: Mapping[str, Any]) -> None:
        """Have the upstreams of the next ``update`` begin with what the old master knew of them.

        Those need no result of their own before the first round is over.
        """
        with self.fork_lock:
            self._adopted = dict(health)
            known = {key: one["standing"] for key, one in health.items() if one.get("standing") is not None}
            self._standings.inherit(known)

    def statuses(self) -> list[UpstreamStatus]:
        """Return all there is to tell of every upstream."""
        with self.fork_lock:
            return self._standings.statuses()

    def mark_drain(self, keys: Sequence[str], on: bool) -> dict[str, int]:
        """Have these upstreams get no new requests, or end that; return how many of each service get some then."""
        with self.fork_lock:
            self._loop.refresh()  # as in `update`
            for key in keys:
                self._standings.mark_drain(key, on)
            open_by_service = self._standings.open_by_service()
        self.wake()
        return open_by_service

    def wake(self) -> None:
        """Say that failures were counted; for workers, never blocks."""
        with contextlib.suppress(BlockingIOError):  # the counter is full: the thread wakes anyway
            os.eventfd_write(self.wake_fd, 1)

    def forget(self) -> None:
        """In a forked child: close the thread's descriptors. ``wake`` still works, nothing else is to be called."""
        self._is_closed = True
        for watch in self._watches.values():
            watch.abandon()
        self._loop.close()

    def stop(self) -> None:
        """End the thread, which takes milliseconds, and close what it held."""
        if self._is_closed:
            return
        self._is_closed = True
        self._is_stopping = True
        self.wake()
        if self._thread.ident is not None:
            self._thread.join()
        for watch in self._watches.values():
            watch.stop()
        self._loop.close()
        os.close(self.wake_fd)
        self.wake_fd = -1  # the number is soon another file's

    def _watch(self, target: ProbeTarget) -> None:
        """Begin to watch an upstream, or go on watching it this way."""
        key = target.upstream.key
        watch = self._watches.get(key)
        if watch is not None:
            watch.retarget(target)
            return
        self._watches[key] = watch = UpstreamWatch(self._loop, target, report=self._on_result, rng=self._rng)
        if (known := self._adopted.get(key)) is not None:
            watch.restore(known)
        if watch.state is Health.UNKNOWN:
            self._without_result.add(key)
        watch.start()

    def _run(self) -> None:
        # Signals are the master's: the kernel must not hand them to this thread, where they would wait for the other.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)
        waiter = select.poll()
        waiter.register(self._loop.fileno(), select.POLLIN)
        while True:
            with self.fork_lock:
                rest_s = self._turn()
                wait_s = self._loop.next_wait_s(LOOK_S)
            # Asked after the turn, which may have read away the wake of stop(); one that comes later ends the wait.
            if self._is_stopping:
                return
            time.sleep(rest_s)
            waiter.poll(max(wait_s - rest_s, 0.0) * 1000)

    def _turn(self) -> float:
        """Handle what is there and return the seconds to rest. An error that nobody foresaw must not end the checks."""
        try:
            self._loop.turn(0.0)
        except Exception:
            log.exception("error in the health checks")
            return ERROR_REST_S
        return REST_S

    def _on_wake(self, events: int) -> None:
        # Left unread and unwatched until the counts are read: a storm of failures wakes the thread once.
        self._loop.remove(self.wake_fd)
        self._is_woken = True
        self._scan_timer.set(max(self._scanned_s + SCAN_GAP_S - self._loop.now_s, 0.0))

    def _scan(self) -> None:
        """Read what workers counted. However many connections were refused, that is one failure of an upstream."""
        self._scanned_s = self._loop.now_s
        if self._is_woken:
            self._is_woken = False
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.wake_fd)
            self._loop.add(self.wake_fd, select.EPOLLIN, self._on_wake)
        for key, is_held_against in self._standings.look().items():
            if (watch := self._watches.get(key)) is None:
                continue
            if is_held_against:
                watch.note_refused()
            else:
                watch.probe_soon()
        self._look_again()

    def _look_again(self) -> None:
        """Error rates are looked at whether or not anybody wakes the thread."""
        every_s = self._standings.look_every_s
        if every_s is not None and not self._scan_timer.is_set:
            self._scan_timer.set(every_s)

    def _on_ejected(self, key: str, until_s: float) -> None:
        watch = self._watches[key]
        watch.probe_at(until_s)
        watch.probe_soon()  # it may be down altogether

    def _on_result(self, watch: UpstreamWatch, result: ProbeResult, transition: Transition | None) -> None:
        """Publish every result, not only changes: a board that missed one is right again after the next.

        What the log says holds when it is said: whoever reads there that an upstream is down need not expect that it
        still gets requests.
        """
        if result is REFUSED:
            self._standings.on_refused(watch.key, watch.state, result)
        else:
            self._standings.on_result(watch.key, watch.state, result)
        if transition is not None:
            self._log_change(watch, transition)
            self._without_result.discard(watch.key)
            self._note_first_round()

    def _log_change(self, watch: UpstreamWatch, transition: Transition) -> None:
        if transition.after is Health.DOWN:
            watch.down_since_s = self._loop.now_s
            log.warning("upstream %s is down: %s", watch.key, transition.reason)
        elif transition.before is Health.DOWN:
            log.info("upstream %s is up again after %.1f s", watch.key, self._loop.now_s - watch.down_since_s)
        else:
            log.info("upstream %s is up", watch.key)

    def _note_first_round(self) -> None:
        if self._without_result:
            self._first_round.clear()
        else:
            self._first_round.set()
