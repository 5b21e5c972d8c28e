"""The public suite for HTTP caches, run against minato and counted by its own rules.

What does not pass has to stand in docs/cache.md with its reason, required and optimal tests apart, and whatever stands
there must not pass.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import Minato, free_port, make_config, service, wait_until

HERE = Path(__file__).parent
SUITE = HERE / "node_modules" / "http-cache-tests"
EXCEPTIONS = HERE.parents[1] / "docs" / "cache.md"
PASSED = "\N{WHITE HEAVY CHECK MARK}"
TIMEOUT_S = 120
KINDS = ("required", "optimal")

# Its tests pause for three seconds, and what becomes stale within two must not wait for others: one at a time.
pytestmark = pytest.mark.xdist_group("conformance")


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    assert found, "the suite needs Node: install it (on Debian and Ubuntu: apt-get install nodejs npm)"
    assert SUITE.is_dir(), "the suite is not installed: make suite"
    return found


@pytest.fixture
def origin(node: str, tmp_path: Path) -> Iterator[int]:
    """The suite's own server; its port."""
    port = free_port()
    settings = {"protocol": "http", "port": str(port), "pidfile": str(tmp_path / "pid")}
    env = os.environ | {f"npm_config_{name}": value for name, value in settings.items()}
    with (tmp_path / "origin.log").open("wb") as log:
        server = subprocess.Popen([node, "server/server.mjs"], cwd=SUITE, env=env, stdout=log, stderr=log)
    try:
        wait_until(lambda: is_listening(port), "the suite's server to listen")
        yield port
    finally:
        server.kill()
        server.wait(10)


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def run_suite(node: str, origin: int, directory: Path, *, workers: int, express: bool) -> list[dict[str, str]]:
    """Run every test and return the results with the suite's own verdicts."""
    entry = service(
        free_port(),
        [{"host": f"http://127.0.0.1:{origin}", "health_uri": "/package.json"}],
        hosts=["http://127.0.0.1/"],
    )
    config = make_config([entry], cache={"enabled": True, "ttl": 0, "capacity": 10_000}, express=express)
    (directory / "minato").mkdir()
    minato = Minato(directory / "minato", config, workers=workers)
    try:
        minato.wait_ready()
        # Each worker has a cache of its own: there all requests of a test go over one connection, to one worker.
        options = ["--one-connection-per-test"] if workers > 1 else []
        command = [node, "run.mjs", f"http://127.0.0.1:{minato.port}", *options]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    finally:
        minato.stop()
    assert not minato.complaints()
    results: list[dict[str, str]] = json.loads(done.stdout)
    return results


def read_exceptions(kind: str) -> dict[str, str]:
    """The tests of a kind that docs/cache.md excepts, each with its reason: rows of the table that is headed so."""
    text = EXCEPTIONS.read_text().partition("## Where the public suite and the RFCs disagree")[2]
    table = text.partition(f"### {kind.capitalize()}\n")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|$", table, re.MULTILINE)
    return {name: reason for names, reason in rows for name in re.findall(r"`([^`]+)`", names)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "express"), [(1, True), (1, False), (2, True)], ids=["one-worker", "h11", "two-workers"]
)
def test_all_that_is_required_and_all_that_is_optimal_passes(
    node: str, origin: int, tmp_path: Path, workers: int, express: bool
) -> None:
    results = run_suite(node, origin, tmp_path, workers=workers, express=express)
    for kind, least in zip(KINDS, (160, 90), strict=True):
        counted = [result for result in results if result["kind"] == kind]
        assert len(counted) >= least, "the suite did not run"
        failed = {result["id"]: result for result in counted if result["verdict"] != PASSED}
        exceptions = read_exceptions(kind)
        unexpected = [failed[name] for name in sorted(failed.keys() - exceptions.keys())]
        assert not unexpected, json.dumps(unexpected, indent=2, ensure_ascii=False)
        assert not exceptions.keys() - failed.keys(), "these pass by now, or are no such tests: out of docs/cache.md"


@pytest.mark.parametrize("kind", KINDS)
def test_every_exception_names_the_sentence_it_stands_on(kind: str) -> None:
    exceptions = read_exceptions(kind)
    assert exceptions
    assert all(re.search(r"RFC \d{4}, \d", reason) for reason in exceptions.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_exceptions_are_counted_rightly(kind: str) -> None:
    said = re.search(rf"(\d+) of (\d+) that are {kind}", EXCEPTIONS.read_text())
    assert said is not None
    assert int(said[1]) == len(read_exceptions(kind))


def test_the_lock_file_pins_the_suite_and_names_no_registry() -> None:
    text = (HERE / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert packages["node_modules/http-cache-tests"]["version"] == "0.4.5"
    assert "://" not in text
    assert all("integrity" in package for path, package in packages.items() if path)
