"""kill -9 of the master, and nobody follows for a while: its workers serve, then close the door behind them and end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from .conftest import Instances
from .harness import App, Client, Minato, fetch, request_bytes, wait_until
from .harness.proxy import title_of
from .harness.succession import Prober, kill_master, open_doors, start_next, wait_gone

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]


def is_refused(port: int) -> bool:
    """Whether nobody listens there; not whether nobody answers."""
    try:
        Client(port, timeout_s=0.3).close()
    except ConnectionRefusedError:
        return True
    except TimeoutError:
        pass
    return False


def test_workers_serve_until_their_time_is_up_and_then_refuse_and_reset_nobody(
    minato: StartMinato, origin: MakeApp
) -> None:
    instance = minato(origin(name="a"), workers=2, timeouts={"orphaned": 2, "drain": 5})
    with instance.client() as idle, Prober(instance.port) as prober:
        idle.request()
        killed_s = time.monotonic()
        kill_master(instance)
        wait_until(lambda: is_refused(instance.port), "the address to be closed")
        # Nobody is cut: who is idle is told with the next response.
        assert idle.request().says_close() and idle.is_closed()
    assert prober.answers > 50
    assert min(begun_s for begun_s, _ in prober.failures) >= killed_s + 2
    assert {what.split(" ")[0] for _, what in prober.failures} == {"ConnectionRefusedError"}
    wait_gone(instance)
    assert open_doors(instance) == []


def test_idle_connections_are_kept_no_longer_than_the_drain_deadline(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(name="a"), timeouts={"orphaned": 0, "drain": 2})
    with instance.client() as idle:
        idle.request()
        kill_master(instance)
        wait_until(lambda: is_refused(instance.port), "the address to be closed")
        assert not idle.is_closed(0.2)
        assert idle.is_closed(5)
    wait_gone(instance)


def test_queues_of_workers_that_are_killed_or_stopped_meanwhile_are_served_by_the_others(
    minato: StartMinato, origin: MakeApp
) -> None:
    instance = minato(origin(name="a"), workers=3, timeouts={"orphaned": 3, "drain": 2})
    killed, stopped, _ = workers = instance.workers()
    kill_master(instance)
    wait_until(lambda: all("without a master" in title_of(worker) for worker in workers), "the workers to notice")
    killed.kill()
    stopped.suspend()
    with Prober(instance.port) as prober:
        prober.wait_more(60)
    assert prober.failures == []
    # The one that is stopped holds its sockets; they are closed all the same.
    wait_until(lambda: is_refused(instance.port), "the address to be closed")
    assert [left.pid for left in instance.survivors() if left.status() != psutil.STATUS_ZOMBIE] == [stopped.pid]
    stopped.resume()
    wait_gone(instance)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_them_as_soon_as_their_requests_are_finished(
    minato: StartMinato, origin: MakeApp, number: signal.Signals
) -> None:
    app = origin(name="a")
    instance = minato(app, workers=2)
    workers = instance.workers()
    with instance.client() as idle, instance.client() as slow:
        idle.request()
        slow.send(request_bytes(target=b"/slow"))
        app.wait_requests(2)
        kill_master(instance)
        wait_until(lambda: all("without a master" in title_of(worker) for worker in workers), "the workers to notice")
        workers[0].send_signal(number)
        # The sockets are everybody's: the other one goes on with all of them.
        with Prober(instance.port) as prober:
            prober.wait_more(60)
        assert prober.failures == []
        workers[1].send_signal(number)
        assert idle.is_closed(2)
        wait_until(lambda: is_refused(instance.port), "the address to be closed", 2)
        app.gate.set()
        assert slow.receive().body == b"slow\n"
    wait_gone(instance, 2)


def test_interrupt_of_the_whole_group_while_the_master_lives_is_none_of_their_business(
    minato: StartMinato, origin: MakeApp
) -> None:
    instance = minato(origin(name="a"), workers=2)
    pids = instance.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGINT)
    assert fetch(instance.port).status == 200
    assert instance.worker_pids() == pids


def test_upstream_that_dies_meanwhile_is_passed_by_though_nobody_probes(minato: StartMinato, origin: MakeApp) -> None:
    first, second = origin(name="a"), origin(name="b")
    instance = minato(first, second, workers=2, timeouts={"orphaned": 3, "drain": 1})
    kill_master(instance)
    first.stop()
    with Prober(instance.port, (b"a", b"b")) as prober:
        prober.wait_more(100)
    assert prober.failures == []
    wait_gone(instance)


def test_stopped_master_is_not_dead(minato: StartMinato, instances: Instances, origin: MakeApp) -> None:
    instance = minato(origin(name="a"), workers=2, timeouts={"orphaned": 0.5})
    os.kill(instance.pid, signal.SIGSTOP)
    time.sleep(1)
    second = start_next(instances, instance, wait_ready=False)
    assert second.wait_exit() == 1
    assert second.find_log(rf"^minato: cannot listen on 127.0.0.1:{instance.port}: address already in use")
    assert fetch(instance.port).get(b"x-origin") == b"a"
    os.kill(instance.pid, signal.SIGCONT)
    assert instance.reload() == 2
    assert fetch(instance.port).get(b"x-origin") == b"a"


def test_old_generation_that_drains_goes_on_draining(minato: StartMinato, origin: MakeApp) -> None:
    app = origin(name="a")
    instance = minato(app, timeouts={"orphaned": 1, "drain": 5})
    with instance.client() as slow, instance.client() as idle:
        idle.request()
        slow.send(request_bytes(target=b"/slow"))
        app.wait_requests(2)
        instance.reload()
        kill_master(instance)
        assert fetch(instance.port).get(b"x-origin") == b"a"
        # It keeps nothing open at which nobody accepts.
        wait_until(lambda: is_refused(instance.port), "the address to be closed")
        assert idle.request().says_close()
        app.gate.set()
        assert slow.receive().body == b"slow\n"
    wait_gone(instance)
