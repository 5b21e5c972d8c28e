"""kill -9 of the master, and another one follows: no request fails, whoever is killed in what moment."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from .conftest import Instances
from .harness import App, Client, Minato, fetch, free_port, make_config, request_bytes, service, wait_until
from .harness.proxy import title_of
from .harness.succession import Prober, kill_master, open_doors, start_next, wait_gone

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]


def test_nobody_notices_that_a_killed_master_is_followed_by_another(
    minato: StartMinato, instances: Instances, origin: MakeApp
) -> None:
    app = origin(name="a")
    instance = minato(app, workers=2, timeouts={"drain": 10})
    with instance.client() as idle, instance.client() as slow, Prober(instance.port) as prober:
        idle.request()
        slow.send(request_bytes(target=b"/slow"))
        wait_until(lambda: app.hits.get(b"/slow"), "the request")
        kill_master(instance)
        time.sleep(0.5)
        assert all("without a master" in title_of(worker) for worker in instance.survivors())
        assert not idle.request().says_close(), "there is nobody to go to yet"
        following = start_next(instances, instance)
        accepted = following.pid
        prober.wait_more()
        # Those of the killed one accept no more, and tell whom they have kept.
        wait_until(lambda: open_doors(instance) == [], "the door to be closed", 3)
        assert idle.request().says_close() and idle.is_closed()
        app.gate.set()
        assert slow.receive().body == b"slow\n"
        wait_gone(instance)
        prober.wait_more()
    prober.check()
    assert accepted == following.pid and len(following.workers()) == 2


@pytest.mark.parametrize("lives_s", [0.2, 0.4, 0.5, 0.6, 0.8])
def test_next_master_is_killed_while_it_starts(
    minato: StartMinato, instances: Instances, origin: MakeApp, lives_s: float
) -> None:
    instance = minato(origin(name="a"), workers=2)
    with Prober(instance.port) as prober:
        kill_master(instance)
        second = start_next(instances, instance, workers=3, wait_ready=False)
        time.sleep(lives_s)
        kill_master(second)
        prober.wait_more()
        third = start_next(instances, instance)
        prober.wait_more()
        wait_gone(instance)
        wait_gone(second)
        prober.wait_more()
    prober.check()
    assert len(third.workers()) == 2


def count_listening(port: int) -> int:
    """Return how many sockets listen on a port (proc_net_tcp(5); state 0A)."""
    with open("/proc/net/tcp", encoding="ascii") as lines:
        return sum(1 for line in lines if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A")


def test_next_master_with_more_workers_is_killed_when_they_serve_already(
    minato: StartMinato, instances: Instances, origin: MakeApp
) -> None:
    """Before it is in office: the workers before it serve on, but accept from none of the sockets that it has made."""
    instance = minato(origin(name="a"), workers=1)
    with ExitStack() as stack:
        probers = [stack.enter_context(Prober(instance.port)) for _ in range(4)]
        kill_master(instance)
        for _ in range(3):
            following = start_next(instances, instance, workers=6, wait_ready=False)
            wait_until(lambda: count_listening(instance.port) == 6, "all of its workers to serve")
            kill_master(following)  # within a second, where the machine has the time; else the next one follows it
            if following.find_log("minato: ready") == []:
                wait_gone(following)
        start_next(instances, instance, workers=1)
        for prober in probers:
            prober.wait_more()
    for prober in probers:
        prober.check()


def test_next_master_is_killed_as_soon_as_it_was_ready(
    minato: StartMinato, instances: Instances, origin: MakeApp
) -> None:
    instance = minato(origin(name="a"), workers=2)
    masters = [instance]
    with Prober(instance.port) as prober:
        for pause_s in (0.0, 0.1, 0.0):
            kill_master(masters[-1])
            masters.append(start_next(instances, instance, workers=len(masters)))
            time.sleep(pause_s)
        kill_master(masters[-1])
        masters.append(start_next(instances, instance, workers=2))
        for dead in masters[:-1]:
            wait_gone(dead)
        prober.wait_more()
    prober.check()


def test_next_master_that_cannot_start_changes_nothing(
    minato: StartMinato, instances: Instances, origin: MakeApp
) -> None:
    app = origin(name="a")
    instance = minato(app, workers=2)
    with socket.create_server(("127.0.0.1", 0)) as taken, Prober(instance.port) as prober:
        kill_master(instance)
        good = instance.config
        instance.config = make_config(
            [service(instance.port, [app])], admin={"listen": f"127.0.0.1:{taken.getsockname()[1]}"}
        )
        second = start_next(instances, instance, wait_ready=False)
        assert second.wait_exit() == 1
        prober.wait_more()
        instance.config = good
        start_next(instances, instance)
        wait_gone(instance)
        prober.wait_more()
    prober.check()


def test_of_two_that_follow_one_takes_over_and_the_other_finds_the_address_in_use(
    minato: StartMinato, instances: Instances, origin: MakeApp
) -> None:
    instance = minato(origin(name="a"), workers=2)
    with Prober(instance.port) as prober:
        kill_master(instance)
        both = [start_next(instances, instance, wait_ready=False) for _ in range(2)]
        wait_until(lambda: any(one.process.poll() is not None for one in both), "one of them to give up")
        loser = next(one for one in both if one.process.poll() is not None)
        assert loser.wait_exit() == 1
        assert loser.find_log(rf"^minato: cannot listen on 127.0.0.1:{instance.port}: address already in use")
        winner = next(one for one in both if one is not loser).wait_ready()
        wait_gone(instance)
        prober.wait_more()
        # A third one is refused as ever.
        third = start_next(instances, instance, wait_ready=False)
        assert third.wait_exit() == 1
    prober.check()
    assert len(winner.workers()) == 2


def test_next_master_has_other_workers_and_other_addresses(
    minato: StartMinato, instances: Instances, origin: MakeApp
) -> None:
    app = origin(name="a")
    kept, dropped, added = free_port(), free_port(), free_port()
    services = [service(kept, [app], name="kept"), service(dropped, [app], name="dropped")]
    instance = minato(services=services, workers=3, timeouts={"drain": 5})
    with Prober(kept) as prober, Client(dropped) as idle:
        idle.request()
        kill_master(instance)
        assert fetch(dropped).status == 200
        instance.config = make_config([service(kept, [app], name="kept"), service(added, [app], name="added")])
        following = start_next(instances, instance, workers=1)
        assert fetch(added).status == 200
        wait_until(lambda: not count_listening(dropped), "the dropped address to be closed", 5)
        assert idle.request().says_close()
        wait_gone(instance)
        prober.wait_more()
        # The slots that nobody has any more are served, after a reload as well.
        following.reload(wait_old_gone=True)
        prober.wait_more(60)
    prober.check()


def test_next_master_that_comes_when_the_workers_are_just_leaving_waits_for_that(
    minato: StartMinato, instances: Instances, origin: MakeApp
) -> None:
    instance = minato(origin(name="a"), workers=2, timeouts={"orphaned": 0.2, "drain": 2})
    kill_master(instance)
    instance.wait_for_log("no new master came")
    start_next(instances, instance)
    assert fetch(instance.port).get(b"x-origin") == b"a"
    wait_gone(instance)
    assert fetch(instance.port).get(b"x-origin") == b"a"


def test_next_master_has_an_address_that_was_dropped_just_before(
    minato: StartMinato, instances: Instances, origin: MakeApp
) -> None:
    app, dropped = origin(name="a"), free_port()
    instance = minato(app, workers=2)
    one, both = instance.config, make_config([*instance.config["services"], service(dropped, [app], name="two")])
    with Prober(instance.port) as prober:
        instance.write_config(both)
        instance.reload()
        instance.write_config(one)
        instance.signal(signal.SIGHUP)
        time.sleep(0.3)
        kill_master(instance)  # the workers that had the address still accept who is about to connect there
        instance.config = both
        start_next(instances, instance)
        assert fetch(dropped).get(b"x-origin") == b"a"
        prober.wait_more()
    prober.check()


@pytest.mark.parametrize(("before", "after"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")])
def test_next_master_listens_on_less_or_on_more(
    minato: StartMinato, instances: Instances, origin: MakeApp, before: str, after: str
) -> None:
    app, port = origin(name="a"), free_port()
    instance = minato(services=[service(port, [app], listen=before)], workers=2, timeouts={"drain": 2})
    with Prober(port) as prober:
        kill_master(instance)
        instance.config = make_config([service(port, [app], listen=after)])
        start_next(instances, instance)
        wait_gone(instance)
        prober.wait_more()
    prober.check()


def test_other_instances_of_the_same_user_are_left_alone(
    minato: StartMinato, instances: Instances, origin: MakeApp
) -> None:
    app = origin(name="a")
    instance, other = minato(app, workers=2), minato(app, workers=2, timeouts={"orphaned": 3, "drain": 1})
    kill_master(instance)
    kill_master(other)
    start_next(instances, instance)
    wait_gone(instance)
    assert fetch(instance.port).get(b"x-origin") == b"a"
    assert fetch(other.port).get(b"x-origin") == b"a"
    assert len(other.survivors()) == 2
    wait_gone(other)


def test_master_is_killed_in_the_middle_of_a_reload(minato: StartMinato, instances: Instances, origin: MakeApp) -> None:
    app, hangs = origin(name="a"), socket.create_server(("127.0.0.1", 0))
    added = free_port()
    instance = minato(app, workers=2)
    with hangs, Prober(instance.port) as prober:
        good = make_config([service(instance.port, [app]), service(added, [app], name="added")])
        slow = f"http://127.0.0.1:{hangs.getsockname()[1]}/"
        instance.write_config(make_config([*good["services"], service(free_port(), [slow], name="slow")]))
        instance.signal(signal.SIGHUP)
        wait_until(lambda: count_listening(added), "the new addresses")  # its upstreams are being probed now
        kill_master(instance)
        waiting = Client(added)
        waiting.send(request_bytes())
        prober.wait_more()
        instance.config = good
        start_next(instances, instance)
        # Who came to an address that nobody served yet has waited for the next one.
        assert waiting.receive().get(b"x-origin") == b"a"
        wait_gone(instance)
        prober.wait_more()
    prober.check()


@pytest.mark.parametrize("after_s", [0.1, 0.3, 0.4, 0.5, 0.7])
def test_old_master_is_killed_in_the_middle_of_an_upgrade(minato: StartMinato, origin: MakeApp, after_s: float) -> None:
    """Whether the new one has its sockets from it by then, or has to take them from its workers."""
    instance = minato(origin(name="a"), workers=2, timeouts={"drain": 5})
    with Prober(instance.port) as prober:
        old = instance.workers()
        instance.signal(signal.SIGUSR2)
        time.sleep(after_s)
        kill_master(instance)
        prober.wait_more()
        instance.note_upgraded()
        wait_until(lambda: not any(worker.is_running() for worker in old), "the old workers to end")
        prober.wait_more()
    prober.check()
    assert len(instance.workers()) == 2


def test_new_master_is_killed_as_soon_as_it_has_taken_over(
    minato: StartMinato, instances: Instances, origin: MakeApp
) -> None:
    app = origin(name="a")
    instance = minato(app, workers=2, timeouts={"drain": 5})
    with Prober(instance.port) as prober, instance.client() as slow:
        slow.send(request_bytes(target=b"/slow"))
        wait_until(lambda: app.hits.get(b"/slow"), "the request")  # so the old master is there yet
        instance.upgrade()
        kill_master(instance)
        prober.wait_more()
        start_next(instances, instance)
        prober.wait_more()
        app.gate.set()
        assert slow.receive().body == b"slow\n"
        wait_gone(instance)
    prober.check()


def test_what_is_purged_at_the_next_master_is_not_answered_by_those_before(
    minato: StartMinato, instances: Instances, origin: MakeApp
) -> None:
    app = origin(name="a")
    app.routes[b"/x"] = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 3\r\n\r\nold"
    instance = minato(app, cache={"enabled": True}, admin={"listen": f"127.0.0.1:{free_port()}"})
    with instance.client() as kept:
        assert kept.request(target=b"/x").body == b"old"
        kill_master(instance)
        start_next(instances, instance, workers=1)
        wait_until(lambda: open_doors(instance) == [], "the door to be closed", 3)
        app.routes[b"/x"] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew"
        assert kept.request(target=b"/x").body == b"new"
    wait_gone(instance)


def test_pid_file_names_the_next_master(minato: StartMinato, instances: Instances, origin: MakeApp) -> None:
    instance = minato(origin(name="a"))
    pid_file = instance.directory / "pid"
    kill_master(instance)
    pid_file.write_text(f"{os.getpid()}\n")  # the pid is somebody else's by now
    directory = instance.directory.with_name("with-pid-file")
    directory.mkdir()
    following = instances.adopt(
        Minato(directory, instance.config, arguments=("--pid-file", str(pid_file)))
    ).wait_ready()
    assert int(pid_file.read_text()) == following.pid
    wait_gone(instance)
