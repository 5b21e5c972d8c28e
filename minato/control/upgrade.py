"""The old master's side of a binary upgrade: does what minato.decide.upgrade says, step by step, and never waits."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from minato.config.model import ListenAddress
from minato.control.admin.endpoint import AdminEndpoint
from minato.control.deaths import describe_exit
from minato.control.deed import Deed
from minato.control.drains import KEYS_PER_MESSAGE, Drains
from minato.control.handover import describe_state
from minato.control.link import VERSION, Link, LinkMessage
from minato.control.listeners import Listeners
from minato.control.peer import MasterPeer
from minato.control.purges import Purges
from minato.control.reexec import CommandLine
from minato.control.rollover import Checker
from minato.control.supervisor import Supervisor
from minato.control.system import is_stopped, remove_dead_boards
from minato.decide.standing import DrainedBy
from minato.decide.upgrade import Facts, Phase, Reason, Said, Step, Upgrade
from minato.net.loop import Loop

log = logging.getLogger("minato.upgrade")

FIRST_PID = 1
ADMIN = DrainedBy.ADMIN.name


class OldMaster(Protocol):
    """What an upgrade asks of the master that began it."""

    def note_upgrade_begun(self) -> None: ...
    def retire(self, kept: Collection[ListenAddress] | None) -> None: ...
    def settle(self, new_pid: int) -> bool: ...
    def resume(self) -> None: ...
    def note_upgrade_given_up(self) -> None: ...
    def obey_successor(self, command: str) -> None: ...


class Upgrader:
    """Starts the new master, hands over to it, or gives it up.

    Args:
        master: is told what to do with itself, and when.
    """

    def __init__(
        self,
        *,
        loop: Loop,
        supervisor: Supervisor,
        listeners: Listeners,
        admin: AdminEndpoint,
        checker: Checker,
        purges: Purges,
        drains: Drains,
        deed: Deed,
        master: OldMaster,
    ) -> None:
        self._supervisor = supervisor
        self._listeners = listeners
        self._admin = admin
        self._checker = checker
        self._deed = deed
        self._master = master
        self._command = CommandLine.of_this_process()
        self._peer = MasterPeer(loop, purges, drains, self._hear)
        self._plan = Upgrade()
        self._pid = 0  # of the new master, while it was not collected
        self._said = Said.NOTHING
        self._is_foreign = self._is_unfit = False
        self._kept: set[ListenAddress] | None = None  # the addresses that the new master goes on with
        self._detail = ""  # what more there is to say of why it was given up
        self._end = ""  # how the new master ended
        self._drain_s = self._timeout_s = 0.0
        self._is_waiting_logged = False
        self._told_drains: set[str] = set()
        self._told_draining = 0
        supervisor.on_stranger = self._on_stranger
        self._steps: dict[Step, Callable[[], None]] = {
            Step.START: self._start,
            Step.SEND_STATE: self._send_state,
            Step.RETIRE: self._retire,
            Step.SETTLE: self._settle,
            Step.GIVE_UP: self._give_up,
            Step.RESUME: self._resume,
            Step.KILL: self._kill,
            Step.FORGET: self._forget_child,
        }

    def __repr__(self) -> str:
        return f"<Upgrader {self._plan.phase.value}, new master {self._pid or 'none'}>"

    @property
    def is_under_way(self) -> bool:
        """Whether there is a new master that may yet take over."""
        return self._plan.is_under_way

    @property
    def is_requested(self) -> bool:
        """Whether one is to begin as soon as it can."""
        return self._plan.is_requested

    @property
    def is_ending_child(self) -> bool:
        """Whether a new master that was given up has not ended yet."""
        return self._plan.phase is Phase.ENDING

    def request(self) -> None:
        """Upgrade as soon as that can be done, or log why it cannot."""
        if os.getpid() == FIRST_PID:
            # When pid 1 ends, the kernel ends everything in its namespace, the new master first of all.
            log.error("no upgrade: this master is pid 1 of its container, which must not end; start a new container")
        elif not self._command.executable:
            log.error("no upgrade: it is not known which Python runs this")
        elif self._plan.phase is Phase.ENDING:
            log.warning("no upgrade: the new master that was given up (pid %d) has not ended yet", self._pid)
        elif self._plan.is_requested:
            log.warning("no further upgrade: one waits already")
        elif not self._plan.request():
            log.warning("no upgrade: one is under way already")
        else:
            self._is_waiting_logged = False

    def advance(self, *, can_begin: bool) -> None:
        """Take every step that can be taken now.

        Args:
            can_begin: whether the master serves and nothing else is going on.
        """
        if self._plan.phase is Phase.IDLE and not self._plan.is_requested:
            return
        while (step := self._plan.next_step(self._facts(can_begin))) is not Step.WAIT:
            self._steps[step]()
        if can_begin and self._plan.is_requested and not self._is_waiting_logged:
            self._is_waiting_logged = True
            log.warning("the upgrade waits: %d older generations still drain", self._supervisor.draining())

    def tell_draining(self, count: int) -> None:
        """This master drains: have the new one know how many generations do, this master's and those before it."""
        if count != self._told_draining:
            self._told_draining = count
            self._peer.send({"draining": count})

    def stop(self, *, fast: bool) -> None:
        """The master is stopping: end the new one first."""
        if self._plan.abort(self._facts(False)):
            log.info("the upgrade ends, too: %s", Reason.STOPPING.value)
            self._end_child(signal.SIGINT if fast else signal.SIGTERM)

    def forget(self) -> None:
        """In a new worker: close the copy of the link."""
        self._peer.forget()

    def close(self) -> None:
        """The master ends: leave no new master behind that has not taken over, and no link."""
        if self._pid and self._plan.phase is not Phase.OVER:
            self._kill()
        self._peer.close()

    def _facts(self, can_begin: bool) -> Facts:
        current = self._supervisor.current
        if current is not None:
            self._drain_s = current.config.timeouts.drain_s
            self._timeout_s = current.config.timeouts.upgrade_s
        return Facts(
            mono_s=self._supervisor.now_s,
            can_begin=can_begin,
            is_alive=self._pid != 0,
            is_linked=self._peer.is_linked,
            said=self._said,
            is_foreign=self._is_foreign,
            is_unfit=self._is_unfit,
            accepting=sum(worker.is_accepting for _, worker in self._supervisor.workers()),
            timeout_s=self._timeout_s,
            drain_s=self._drain_s,
            draining=self._supervisor.draining(),
        )

    def _start(self) -> None:
        self._said, self._is_foreign, self._is_unfit, self._detail, self._end = Said.NOTHING, False, False, "", ""
        self._kept = None
        log.info("upgrading: starting a new master, %s", " ".join([self._command.executable, *self._command.arguments]))
        self._master.note_upgrade_begun()
        ours, theirs = Link.pair()
        try:
            self._pid = self._command.start(theirs, self._checker.fork_lock)
        except OSError as error:
            ours.close()
            self._detail = f"no process to be had: {error.strerror}"
            self._plan.fail()
            self._note_given_up()
            return
        finally:
            theirs.close()
        self._peer.connect(ours, self._pid)

    def _hear(self, message: LinkMessage) -> None:
        says = message.says
        if "cannot" in says:
            self._detail = f"cannot execute {says['cannot']}"
        elif "hello" in says:
            self._said = max(self._said, Said.HELLO)
            self._is_foreign = says["hello"] != VERSION
            if self._is_foreign:
                self._detail = f"{says['hello']!r:.40}, this one for {VERSION}"
        elif "unfit" in says:
            self._is_unfit = True
        elif "ready" in says:
            self._said = max(self._said, Said.READY)
            if "addresses" in says:
                self._kept = {ListenAddress(host, port) for host, port in says["addresses"]}
        elif "command" in says and self._plan.phase is Phase.OVER:
            self._master.obey_successor(str(says["command"]))

    def _send_state(self) -> None:
        self._peer.take_part_in_purges()
        health = self._checker.export_health()
        self._told_drains = _drained_of(health)
        try:
            box = self._deed.box()
        except OSError as error:
            log.warning("the new master will not know it when this one is killed: %s", error.strerror)
            box = None
        for says, sockets in describe_state(self._listeners.bound(), self._admin.bound(), health, box):
            self._peer.send(says, sockets)

    def _retire(self) -> None:
        log.info("all workers of the new master (pid %d) serve; those of this one drain", self._pid)
        self._send_drains()
        self._peer.take_part_in_drains()
        self._master.retire(self._kept)

    def _send_drains(self) -> None:
        """Say what the admin API was told since the state was sent."""
        drained = _drained_of(self._checker.export_health())
        # No more than that: the new one may have been told something, too.
        changed = sorted(drained ^ self._told_drains)
        for start in range(0, len(changed), KEYS_PER_MESSAGE):
            part = changed[start : start + KEYS_PER_MESSAGE]
            self._peer.send({"drained": [key for key in part if key in drained], "of": part})

    def _settle(self) -> None:
        log.info("the new master (pid %d) has taken over; this one finishes what it has and ends", self._pid)
        # First: the service manager must know the new master before it hears from it.
        is_reload_due = self._master.settle(self._pid)
        self._peer.send({"settled": True, "reload": is_reload_due})
        if is_stopped(self._pid):
            log.warning(
                "the new master (pid %d) is stopped; its workers serve, it sees to them after SIGCONT", self._pid
            )

    def _give_up(self) -> None:
        self._note_given_up()
        self._end_child(signal.SIGTERM)

    def _resume(self) -> None:
        self._give_up()
        self._master.resume()

    def _note_given_up(self) -> None:
        said = ", ".join(part for part in (self._detail, self._end) if part)
        detail = f" ({said})" if said else ""
        log.error("upgrade given up: the new master: %s%s; this one goes on", self._plan.reason.value, detail)
        if not self._pid:
            remove_dead_boards()
        self._master.note_upgrade_given_up()

    def _end_child(self, number: signal.Signals) -> None:
        self._peer.send({"given_up": True})
        if self._pid:
            # What it accepted by now is served to its end.
            os.kill(self._pid, number)

    def _kill(self) -> None:
        log.warning("the new master (pid %d) does not end; killing it", self._pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def _forget_child(self) -> None:
        log.info("the new master that was given up is gone: it %s", self._end)
        self._peer.close()
        remove_dead_boards()

    def _on_stranger(self, pid: int, status: int) -> None:
        """A child ended that is no worker."""
        if pid != self._pid:
            return
        self._pid = 0
        self._peer.hear()  # what it said last
        if self._plan.phase is Phase.OVER:
            log.warning("the new master (pid %d) %s", pid, describe_exit(status))
        self._end = describe_exit(status)
        self._peer.close()


def _drained_of(health: Mapping[str, Any]) -> set[str]:
    """Return the keys of the upstreams that the admin API has drained, of an ``export_health``."""
    return {key for key, one in health.items() if ADMIN in (one.get("standing") or {}).get("drained_by", ())}
