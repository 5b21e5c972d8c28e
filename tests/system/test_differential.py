"""The fuzzer's messages through real processes: nginx as the origin counts its requests, hostile answers come back.

The bulk of the fuzzing goes through a worker in the test's own process (tests/fuzzing); here several connections come
at once, and a third parser reads.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuzzing.cases import (
    Answer,
    RequestCase,
    ResponseCase,
    case_of_response,
    random_case,
    request_entries,
    request_id,
    response_entries,
)
from tests.fuzzing.plain_reader import read_responses
from tests.fuzzing.rig import Seen, render_requests
from tests.fuzzing.verdicts import RESPONSE_READERS, judge, methods_of, read_as_minato

from .harness import Minato, Origin, OriginConnection, fetch, free_port, response_bytes, wait_until
from .harness.client import Client
from .harness.load import find_tool
from .harness.proxy import rss_bytes

StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Origin]

pytestmark = pytest.mark.slow
BOTH_CODECS = pytest.mark.parametrize("express", [True, False], ids=["express", "h11"])

_CONFIG = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log info;
events {{ worker_connections 1024; }}
http {{
    log_format seen '$connection/$connection_requests $status "$request_method" "$request_uri"';
    access_log {directory}/access.log seen;
    keepalive_requests 1000000; large_client_header_buffers 8 64k; client_max_body_size 0;
    client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    server {{
        listen 127.0.0.1:{port};
        add_header X-Seen "$connection/$connection_requests" always;
        location / {{ proxy_pass http://unix:{directory}/inner; }}
        location = /health {{ access_log off; return 200 "well\\n"; }}
    }}
    # It answers at once. The server in front of it reads the whole body first, and answers 400 where it cannot.
    server {{ listen unix:{directory}/inner; access_log off; location / {{ return 200 "seen\\n"; }} }}
}}
"""
_UNFINISHED = ("400 ", "499 ", '405 "TRACE"')  # a TRACE it answers before it has read it


class CountingNginx:
    """An nginx whose log has a line for each request that it read, under the name that it gave the response."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = directory / "access.log"
        config = directory / "nginx.conf"
        config.write_text(_CONFIG.format(directory=directory, port=self.port))
        command = [find_tool("nginx"), "-p", str(directory), "-c", str(config)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(self._is_up, "nginx to listen")

    def _is_up(self) -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            Client(self.port).close()
            return True
        return False

    def read(self) -> dict[str, str]:
        """Return what it read, by the names of the responses."""
        return dict(line.split(" ", 1) for line in self._log.read_text("utf-8", "replace").splitlines())

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[CountingNginx]:
    server = CountingNginx(tmp_path / "nginx")
    yield server
    server.stop()


def exchange(port: int, pieces: tuple[bytes, ...]) -> bytes:
    """Send the pieces, end this half, and return all that comes back."""
    with Client(port, timeout_s=20) as client, contextlib.suppress(ConnectionError):
        for piece in pieces:
            client.send(piece)
        client.half_close()
        return client.read_to_end()
    return b""


def names_in(received: bytes, wire: bytes) -> list[str]:
    """Return the names of the origin's responses, after every reader has read as many, with the same statuses."""
    methods = methods_of(read_as_minato(wire), received)
    plain = read_responses(received, methods, ends=True)
    assert not plain.error, (plain, wire)
    for name, read in RESPONSE_READERS.items():
        reading = read(received, methods, ends=True)
        assert reading.messages == plain.messages, (name, reading, plain, wire)
    return [mark.decode() for message in plain.final if (mark := message.get(b"x-seen"))]


@BOTH_CODECS
def test_nginx_reads_as_many_requests_as_clients_get_responses_to(
    minato: StartMinato, nginx: CountingNginx, express: bool
) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    rng = random.Random(seed)
    entries = request_entries()
    cases = [RequestCase((entry.wire,)) for entry in entries]
    while len(cases) < 1500:
        case = random_case(rng, entries, response_entries())
        if isinstance(case, RequestCase):
            cases.append(case)
    instance = minato({"host": nginx.url, "health_uri": "/health"}, express=express)
    (worker,) = instance.workers()
    named: Counter[str] = Counter()
    failures: list[BaseException] = []

    def work(own: list[RequestCase]) -> None:
        try:
            for case in own:
                named.update(names_in(exchange(instance.port, case.pieces), case.wire))
        except BaseException as error:
            failures.append(error)

    in_threads(work, cases[:500])
    before = rss_bytes(worker)
    in_threads(work, cases[500:])
    assert not failures, failures[0]
    assert max(named.values()) == 1
    assert len(named) > 300
    wait_until(lambda: len(nginx.read()) >= len(named), "nginx to log them all")
    seen = nginx.read()
    unnamed = {name: line for name, line in seen.items() if name not in named and not line.startswith(_UNFINISHED)}
    assert unnamed == {}
    assert {name for name in named if name not in seen} == set()
    # What nginx cannot make sense of it logs without a method: the rest of a message that it ended earlier than minato.
    assert [line for line in seen.values() if '""' in line] == []
    assert fetch(instance.port).status == 200
    assert rss_bytes(worker) < before + 16 * 1_048_576


def in_threads(work: Callable[[list[RequestCase]], None], cases: list[RequestCase], threads: int = 4) -> None:
    running = [threading.Thread(target=work, args=(cases[number::threads],), daemon=True) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert not any(thread.is_alive() for thread in running)


class HostileOrigin:
    """The script of an origin that answers by the id in the target, and keeps account of it."""

    def __init__(self) -> None:
        self.answers: dict[bytes, Answer] = {}
        self.given: dict[bytes, list[tuple[bytes, Answer]]] = {}

    def __call__(self, connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            own_id = request.target[1:7]
            body = b"plain answer to " + own_id
            answer = self.answers.get(own_id) or Answer((response_bytes(body),))
            self.given.setdefault(own_id, []).append((request.method, answer))
            connection.send(answer.wire.replace(b"IDIDID", own_id))
            if answer.closes:
                connection.half_close()


@BOTH_CODECS
def test_clients_get_what_the_origin_said_or_see_that_they_did_not(
    minato: StartMinato, origin: MakeOrigin, express: bool
) -> None:
    script = HostileOrigin()
    timeouts = {"response": 0.3, "read": 0.3}
    instance = minato(origin(script), express=express, timeouts=timeouts, health={"interval": 600})
    for number, entry in enumerate(response_entries()):
        case = case_of_response(entry)
        assert isinstance(case, ResponseCase)
        ids = tuple(request_id(10 * number + offset) for offset in range(len(case.methods)))
        script.answers[ids[0]] = Answer((case.wire,), case.answers[0].closes)
        received = exchange(instance.port, (b"".join(render_requests(case.methods, ids)),))
        assert judge(Seen(case, received, True, (), ids, script.given, ())) == [], (entry.name, received)
    assert fetch(instance.port, b"/999999").body == b"plain answer to 999999"
