"""USR2 with stand-in servers: who accepts, who tells the system, and that nothing hangs whoever dies or is told to."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.control.runner import Instance, ask, connect, finish, wait_refused, write_config
from tests.ports import free_port

Start = Callable[..., Instance]


@pytest.fixture
def extra() -> str:
    return "timeouts: {upgrade: 20, drain: 5, orphaned: 1}"


@contextlib.contextmanager
def file(path: Path) -> Iterator[None]:
    path.touch()
    yield
    path.unlink(missing_ok=True)


def children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children()


def new_master(minato: Instance) -> psutil.Process:
    """Wait until there is one and it has said hello (its workers are forked after that), and return it."""
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        for child in children(minato.pid):
            with contextlib.suppress(psutil.Error):
                if "minato: master" in " ".join(child.cmdline()):
                    minato._seen.update([child.pid])
                    return child
        time.sleep(0.01)
    raise AssertionError(minato.log)


def wait_gone(process: psutil.Process) -> None:
    deadline_s = time.monotonic() + 20
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_new_master_serves_and_the_old_one_finishes_and_ends_with_0(minato: Instance, port: int) -> None:
    old = minato.pid
    with connect(port) as slow:
        minato.wait_accepted(slow)
        first = {worker.pid for worker in minato.workers()}
        minato.signal(signal.SIGUSR2)
        assert minato.upgraded() != old
        assert int(ask(port)["pid"]) not in first
        assert int(finish(slow)["pid"]) in first
    assert minato.wait_exit() == 0
    assert [name for name in os.listdir("/dev/shm") if name.startswith(f"minato-{old}-")] == []
    assert len(minato.workers()) == 2
    minato.signal(signal.SIGTERM)
    minato.wait_for("generation 1 is gone", 2)


def test_command_line_and_directory_are_those_of_the_start(start: Start, tmp_path: Path, port: int) -> None:
    instance = start(tmp_path / "config.yaml", "3", "minato.pid")
    instance.wait_ready()
    try:
        instance.signal(signal.SIGUSR2)
        instance.upgraded()
        assert instance.wait_exit() == 0
        assert len(instance.workers()) == 3
        # Relative to the directory that the tests start it in.
        assert int((Path(__file__).resolve().parents[2] / "minato.pid").read_text()) == instance.pid
        instance.signal(signal.SIGTERM)
        wait_gone(psutil.Process(instance.pid))
    finally:
        assert not (Path(__file__).resolve().parents[2] / "minato.pid").exists()


def test_pid_file_names_the_master_in_office(start: Start, config: Path, port: int, tmp_path: Path) -> None:
    pid_file = tmp_path / "minato.pid"
    instance = start(config, "1", str(pid_file))
    instance.wait_ready()
    old = instance.pid
    with file(config.parent / "boot-hangs"):
        instance.signal(signal.SIGUSR2)
        new_master(instance)
        assert int(pid_file.read_text()) == old
    new = instance.upgraded()
    assert instance.wait_exit() == 0
    assert int(pid_file.read_text()) == new
    instance.signal(signal.SIGTERM)
    wait_gone(psutil.Process(new))
    assert not pid_file.exists()


@contextlib.contextmanager
def service_manager(path: Path) -> Iterator[Callable[[int], list[tuple[int, str]]]]:
    """Stand in for systemd: ``read(count)`` returns so many messages, each with its sender as the kernel knows it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.bind(str(path))
        manager.settimeout(20)

        def read(count: int) -> list[tuple[int, str]]:
            messages = []
            for _ in range(count):
                data, ancillary, _, _ = manager.recvmsg(4096, 100)
                messages.append((int.from_bytes(ancillary[0][2][:4], "little"), data.decode()))
            return messages

        yield read


def test_service_manager_hears_the_master_in_office_alone(
    start: Start, config: Path, port: int, tmp_path: Path
) -> None:
    with service_manager(tmp_path / "notify") as read:
        instance = start(config, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        old = instance.pid
        assert read(1) == [(old, "READY=1")]
        instance.signal(signal.SIGUSR2)
        (sender, begun), main, ready = read(3)
        assert sender == old and begun.startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert int(begun.rsplit("=", 1)[1]) <= time.monotonic_ns() // 1000
        new = instance.upgraded()
        assert main == (old, f"MAINPID={new}")
        assert ready == (new, "READY=1")
        assert instance.wait_exit() == 0  # and says nothing of a stop
        instance.signal(signal.SIGHUP)
        assert [state.split("\n")[0] for _, state in read(2)] == ["RELOADING=1", "READY=1"]
        instance.signal(signal.SIGTERM)
        assert read(1) == [(new, "STOPPING=1")]


def test_service_manager_hears_of_an_upgrade_that_was_given_up(
    start: Start, config: Path, port: int, tmp_path: Path
) -> None:
    with service_manager(tmp_path / "notify") as read:
        instance = start(config, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        read(1)
        with file(config.parent / "boot-fails"):
            instance.signal(signal.SIGUSR2)
            states = read(2)
        assert [(sender, state.split("\n")[0]) for sender, state in states] == [
            (instance.pid, "RELOADING=1"),
            (instance.pid, "READY=1"),
        ]
        instance.signal(signal.SIGTERM)
        assert read(1) == [(instance.pid, "STOPPING=1")]


def test_new_master_whose_workers_do_not_start_is_given_up(minato: Instance, config: Path, port: int) -> None:
    with file(config.parent / "boot-fails"):
        minato.signal(signal.SIGUSR2)
        line = minato.wait_for("upgrade given up")
    assert "ended with status 1" in line
    assert ask(port)["gen"] == "1"
    assert len(minato.wait_workers("0 gen 1", "1 gen 1")) == 2
    minato.signal(signal.SIGUSR2)  # the next one can
    minato.upgraded()
    assert minato.wait_exit() == 0


def test_new_master_that_is_not_ready_in_time_is_given_up(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port, extra="timeouts: {upgrade: 1.5, drain: 1}")
    minato = start(config)
    minato.wait_ready()
    with file(config.parent / "boot-hangs"):
        minato.signal(signal.SIGUSR2)
        assert "not ready in time" in minato.wait_for("upgrade given up")
        assert ask(port)["gen"] == "1"
    minato.wait_for("the new master that was given up is gone: it (ended with status|was killed)")
    minato.wait_workers("0 gen 1", "1 gen 1")


@pytest.mark.parametrize("text", ["services: [\n", "nonsense: 1\n"])
def test_broken_config_is_given_up_with_the_exit_status(minato: Instance, config: Path, port: int, text: str) -> None:
    config.write_text(text)
    minato.signal(signal.SIGUSR2)
    assert "ended with status" in minato.wait_for("upgrade given up")
    assert ask(port)["gen"] == "1"


def test_address_in_use_is_given_up(minato: Instance, config: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        write_config(config, port, other.getsockname()[1])
        minato.signal(signal.SIGUSR2)
        minato.wait_for("cannot listen on")
        minato.wait_for("upgrade given up")
    assert ask(port)["gen"] == "1"


def test_second_usr2_and_another_number_of_workers_are_refused(minato: Instance, config: Path) -> None:
    with file(config.parent / "boot-hangs"):
        minato.signal(signal.SIGUSR2)
        new = new_master(minato)
        minato.signal(signal.SIGUSR2)
        minato.wait_for("no upgrade: one is under way already")
        os.kill(new.pid, signal.SIGUSR2)
        minato.wait_for("no upgrade: this master has not taken over yet")
        minato.signal(signal.SIGTTIN)
        minato.wait_for("the number of workers stays while an upgrade is under way")
    minato.upgraded()
    assert minato.wait_exit() == 0


def test_hup_during_an_upgrade_is_obeyed_by_the_new_master(minato: Instance, config: Path, port: int) -> None:
    with file(config.parent / "boot-hangs"):
        minato.signal(signal.SIGUSR2)
        new_master(minato)
        added = free_port()
        write_config(config, port, added)
        minato.signal(signal.SIGHUP)
        minato.wait_for("the reload waits for the upgrade")
    minato.upgraded()
    minato.wait_for("generation 2 serves")
    assert ask(added)["gen"] == "2"


def test_hup_during_an_upgrade_that_is_given_up_is_obeyed_by_the_old_master(
    minato: Instance, config: Path, port: int
) -> None:
    with file(config.parent / "boot-hangs"):
        minato.signal(signal.SIGUSR2)
        new = new_master(minato)
        minato.signal(signal.SIGHUP)
        minato.wait_for("the reload waits for the upgrade")
        new.kill()
        assert "killed by SIGKILL" in minato.wait_for("upgrade given up")
    minato.wait_for("generation 2 serves")
    assert ask(port)["gen"] == "2"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_of_the_old_master_ends_both(minato: Instance, config: Path, port: int, number: signal.Signals) -> None:
    with file(config.parent / "boot-hangs"):
        minato.signal(signal.SIGUSR2)
        new = new_master(minato)
        minato.signal(number)
        assert minato.wait_exit() == 0
    wait_gone(new)
    wait_refused(port)


def test_interrupt_of_the_whole_group_ends_both(minato: Instance, config: Path, port: int) -> None:
    with file(config.parent / "boot-hangs"):
        minato.signal(signal.SIGUSR2)
        new = new_master(minato)
        os.killpg(minato.pid, signal.SIGINT)
        assert minato.wait_exit() == 0
    wait_gone(new)


def test_stop_of_a_new_master_that_boots_leaves_the_old_one(minato: Instance, config: Path, port: int) -> None:
    with file(config.parent / "boot-hangs"):
        minato.signal(signal.SIGUSR2)
        new = new_master(minato)
        os.kill(new.pid, signal.SIGTERM)
        minato.wait_for("upgrade given up")
    wait_gone(new)
    assert ask(port)["gen"] == "1"
    minato.wait_for("is gone: |ended with status|was killed by SIGTERM")
    minato.signal(signal.SIGUSR2)
    minato.upgraded()
    assert minato.wait_exit() == 0


def test_old_master_killed_while_the_new_one_boots_leaves_its_place_to_it(
    minato: Instance, config: Path, port: int
) -> None:
    workers = minato.workers()
    with file(config.parent / "boot-hangs"):
        minato.signal(signal.SIGUSR2)
        new_master(minato)
        deadline_s = time.monotonic() + 20  # the state is handed over: it forks
        while not [child for child in children(new_master(minato).pid)]:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        os.kill(minato.pid, signal.SIGKILL)
        pids = {str(worker.pid) for worker in workers}
        time.sleep(0.5)
        # Its workers serve on, and know that somebody comes: orphaned (1 s) is over soon.
        assert {ask(port)["pid"] for _ in range(8)} <= pids
        time.sleep(1.0)
        assert {ask(port)["pid"] for _ in range(8)} <= pids
    minato.upgraded()
    for worker in workers:
        wait_gone(worker)
    assert ask(port)["pid"] not in pids
    minato.process.wait()
    minato.signal(signal.SIGTERM)
    wait_gone(psutil.Process(minato.pid))


def test_new_master_killed_just_after_it_was_ready_is_followed_by_the_old_one(minato: Instance, port: int) -> None:
    # Workers that hang cannot say that they drain: so the hand-over takes its two seconds.
    workers = minato.workers()
    for worker in workers:
        worker.suspend()
    minato.signal(signal.SIGUSR2)
    new = new_master(minato)
    minato.wait_for("all workers of the new master .* serve")
    assert ask(port)["gen"] == "1"
    new.kill()
    assert "just after it was ready" in minato.wait_for("upgrade given up")
    # Its end is heard of by the link or by its parent first, whichever comes sooner.
    minato.wait_for("the new master that was given up is gone.*SIGKILL|upgrade given up.*SIGKILL")
    for worker in workers:
        worker.resume()
    minato.wait_for("generation 2 serves")
    assert ask(port)["gen"] == "2"
    minato.signal(signal.SIGTERM)
    assert minato.wait_exit() == 0


def test_slots_and_addresses_come_and_go_with_an_upgrade(minato: Instance, config: Path, port: int) -> None:
    added = free_port()
    for workers, ports in ((4, (port, added)), (1, (added,)), (2, (port, added))):
        write_config(config, *ports, workers=workers)
        minato.signal(signal.SIGUSR2)
        minato.upgraded()
        assert len(minato.workers()) == workers
        # Every slot's queue is attended to, those of the workers that are no more by the others.
        answers = [ask(known)["gen"] for known in ports for _ in range(16)]
        assert set(answers) == {"1"}
        if port not in ports:
            deadline_s = time.monotonic() + 5
            with pytest.raises(ConnectionRefusedError):
                while time.monotonic() < deadline_s:
                    ask(port)
    assert minato.wait_exit() == 0


def test_health_is_known_from_the_start(start: Start, config: Path) -> None:
    """An upstream that does not answer the first probe of the new master is what it was, and holds nothing up."""
    hanging = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as origin:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = origin.accept()
                    if hanging.is_set():
                        continue
                    with sock:
                        sock.recv(1000)
                        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        port = free_port()
        write_config(config, port, upstream=origin.getsockname()[1], extra="health: {http_timeout: 30}")
        minato = start(config)
        minato.wait_ready()
        hanging.set()
        began_s = time.monotonic()
        minato.signal(signal.SIGUSR2)
        minato.upgraded()
        assert time.monotonic() - began_s < 15
        assert ask(port)["healthy"] == "1"
        assert minato.wait_exit() == 0
        origin.shutdown(socket.SHUT_RDWR)
        thread.join()
