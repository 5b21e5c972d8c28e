"""A new config whose workers crash again and again is taken back; what served before serves, and everybody is told."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.control.runner import WAIT_S, Instance, ask, connect, read_answer, wait_refused, write_config
from tests.ports import free_port

Start = Callable[..., Instance]
CRASHING = "limits: {connections: 666}"


def health(port: int) -> dict[str, object]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=WAIT_S) as answer:
        content = json.load(answer)
    assert isinstance(content, dict)
    return content


def test_config_whose_workers_crash_is_taken_back_and_everybody_is_told(
    start: Start, config: Path, tmp_path: Path
) -> None:
    port, admin, added = free_port(), free_port(), free_port()
    listen = f'admin: {{listen: "127.0.0.1:{admin}"}}'
    write_config(config, port, workers=1, extra=listen)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(WAIT_S)
        minato = start(config, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        minato.wait_ready()
        with connect(port) as slow:
            slow.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
            minato.wait_accepted(slow)
            write_config(config, port, added, workers=1, extra=f"{listen}\n{CRASHING}")
            minato.signal(signal.SIGHUP)
            line = minato.wait_for("generation 2 is given up")
            assert "3 of its workers crashed" in line and "going back to the config of generation 1" in line
            minato.wait_for("generation 3 serves with 1 workers")
            assert read_answer(slow)["gen"] == "1", "what was in flight is finished by whom it began with"
        assert ask(port)["gen"] == "3"
        wait_refused(added)
        note = "generation 2 crashed again and again; the config of generation 1 serves in its place"
        assert health(admin) == {"status": "ok", "workers": 1, "note": note}
        told = [manager.recv(1000)]
        while not told[-1].startswith(b"STATUS="):
            told.append(manager.recv(1000))
        assert told[-1] == b"STATUS=" + note.encode()
        # A mended config serves, and there is nothing left to say.
        write_config(config, port, workers=1, extra=listen)
        minato.signal(signal.SIGHUP)
        minato.wait_for("generation 4 serves")
        assert health(admin) == {"status": "ok", "workers": 1}
        while told[-1] != b"STATUS=":
            told.append(manager.recv(1000))


def test_config_that_crashes_still_is_taken_back_again(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port, workers=1)
    minato = start(config)
    minato.wait_ready()
    write_config(config, port, workers=1, extra=CRASHING)
    for given_up in (2, 4):
        minato.signal(signal.SIGHUP)
        minato.wait_for(f"generation {given_up} is given up")
        minato.wait_for(f"generation {given_up + 1} serves")
        assert ask(port)["gen"] == str(given_up + 1)


def test_first_config_that_crashes_is_tried_again_with_pauses(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port, workers=1, extra=CRASHING)
    minato = start(config)
    minato.wait_for("worker 0 is started again in 1 s")
    assert not any("given up" in line for line in minato.log)


def test_workers_killed_by_hand_are_no_crash_loop(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port, workers=1)
    minato = start(config)
    minato.wait_ready()
    minato.signal(signal.SIGHUP)
    minato.wait_for("generation 2 serves")
    minato.wait_for("generation 1 is gone")
    for count in range(1, 5):
        minato.wait_for("worker 0 gen 2 serves", count=count)
        minato.wait_workers("0 gen 2")[0].kill()
    minato.wait_for("worker 0 gen 2 serves", count=5)
    assert not any("given up" in line for line in minato.log)


def test_next_master_whose_workers_crash_leaves_the_field_to_those_of_the_killed_one(
    start: Start, config: Path
) -> None:
    port = free_port()
    write_config(config, port, workers=1)
    killed = start(config)
    killed.wait_ready()
    workers = killed.workers()
    killed.process.kill()
    write_config(config, port, workers=1, extra=CRASHING)
    crashing = start(config)
    crashing.wait_for("its workers crash again and again; those of the master that was killed go on")
    assert crashing.wait_exit() == 1
    assert [worker.is_running() for worker in workers] == [True]
    assert ask(port)["gen"] == "1"
    write_config(config, port, workers=1)
    start(config).wait_ready()
    psutil.wait_procs(workers, WAIT_S)
    assert not any(worker.is_running() for worker in workers)
    assert ask(port)["gen"] == "1"
