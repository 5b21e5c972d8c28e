"""Purging through the admin API: every worker's own cache, those that drain and those that hang included."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

from tests.chaos.sockets import has_accepted

from .conftest import Instances
from .harness import (
    App,
    Client,
    Minato,
    OriginConnection,
    Request,
    Response,
    fetch,
    free_port,
    request_bytes,
    response_bytes,
    wait_until,
)
from .harness.proxy import run_minato

StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Any]
Answer = tuple[int, dict[str, Any]]

CACHE = {"enabled": True, "ttl": 0, "capacity": 1000}
FRESH = [(b"Cache-Control", b"max-age=600"), (b"ETag", b'"1"')]
ALL = {"all": True}


@pytest.fixture(scope="module")
def app(module_origin: Callable[..., App]) -> App:
    return module_origin()


@pytest.fixture(scope="module")
def admin() -> int:
    return free_port()


@pytest.fixture(scope="module")
def proxy(module_instances: Instances, app: App, admin: int) -> Minato:
    listen = {"listen": f"127.0.0.1:{admin}"}
    hosts = {"hosts": ["http://*.test/", "http://test.local/"]}
    return module_instances.start(app, workers=3, cache=CACHE, admin=listen, service_keys=hosts)


@pytest.fixture
def path(request: pytest.FixtureRequest) -> bytes:
    """A path of the test's own: nothing is stored under it yet."""
    return b"/" + request.node.name.encode().translate(None, b"[]?#% ")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def ask(admin: int, content: Any, method: bytes = b"POST", target: bytes = b"/purge", **options: Any) -> Answer:
    fields = options.pop("fields", [(b"Content-Type", b"application/json")])
    response = fetch(admin, target, method=method, host=b"localhost", fields=fields, body=json.dumps(content).encode())
    return response.status, json.loads(response.body)


def outcome(response: Response) -> str:
    """hit, stored (anew), validated, or passed, out of Cache-Status."""
    status = (response.get(b"cache-status") or b"").decode()
    assert status.startswith("minato"), status
    if "; hit" in status:
        return "hit"
    return "validated" if "fwd-status=304" in status else "stored" if "; stored" in status else "passed"


def clients_of(instance: Minato, worker: psutil.Process, count: int, stack: ExitStack) -> list[Client]:
    """Open connections until that worker has so many of them: the kernel chooses who gets which."""
    found: list[Client] = []
    while len(found) < count:
        client = stack.enter_context(instance.client())
        assert client.request(target=b"/status/200").status == 200
        if has_accepted(worker.pid, client.sock):
            found.append(client)
    return found


def one_client_of_each(instance: Minato, stack: ExitStack) -> list[Client]:
    return [clients_of(instance, worker, 1, stack)[0] for worker in instance.workers()]


def outcomes(clients: list[Client], path: bytes, host: bytes = b"test.local") -> list[str]:
    return [outcome(client.request(target=path, host=host)) for client in clients]


def fill(clients: list[Client], path: bytes, host: bytes = b"test.local") -> None:
    """Have it stored by every worker, and answered from there often enough to be an answer that goes out as it is."""
    assert outcomes(clients, path, host) == ["stored"] * len(clients)
    for _ in range(4):
        assert outcomes(clients, path, host) == ["hit"] * len(clients)


@pytest.mark.parametrize(
    ("content", "host"),
    [
        ({"url": "http://test.local/{path}"}, b"test.local"),
        ({"url": "http://other.test/{path}"}, b"other.test"),
        ({"url": ["http://a.test/", "http://test.local/{path}"]}, b"test.local"),
        ({"prefix": "http://test.local/{stem}"}, b"test.local"),
        ({"tag": "tag-{path}"}, b"test.local"),
        ({"tag": ["other", "tag-{path}"]}, b"test.local"),
    ],
    ids=["url", "host", "urls", "prefix", "tag", "tags"],
)
@pytest.mark.parametrize("soft", [False, True])
def test_what_is_purged_is_gone_from_every_worker_and_nothing_else_is(
    proxy: Minato, app: App, admin: int, path: bytes, stack: ExitStack, content: dict[str, Any], host: bytes, soft: bool
) -> None:
    def answer(connection: OriginConnection, request: Request) -> None:
        fields = [*FRESH, (b"Cache-Tag", b"all-of-them, tag-" + path[1:])]
        is_same = request.values(b"if-none-match") == [b'"1"']
        connection.send(
            response_bytes(b"", status=b"304 Not Modified", fields=fields, length=False)
            if is_same
            else response_bytes(b"body", fields=fields)
        )

    app.routes[path] = answer
    app.routes[b"/kept" + path] = response_bytes(b"body", fields=FRESH)
    clients = one_client_of_each(proxy, stack)
    fill(clients, path, host)
    fill(clients, b"/kept" + path)
    text = json.dumps(content).replace("{path}", path[1:].decode()).replace("{stem}", path[1:-1].decode())
    assert ask(admin, json.loads(text) | {"soft": soft}) == (200, {"purged": 3, "workers": 3})
    assert outcomes(clients, path, host) == ["validated" if soft else "stored"] * 3
    assert outcomes(clients, b"/kept" + path) == ["hit"] * 3


def test_purge_of_all_leaves_nothing(proxy: Minato, app: App, admin: int, path: bytes, stack: ExitStack) -> None:
    paths = [path + b"/%d" % number for number in range(5)]
    clients = one_client_of_each(proxy, stack)
    ask(admin, ALL)
    for each in paths:
        app.routes[each] = response_bytes(b"body", fields=FRESH)
        fill(clients, each)
    assert ask(admin, ALL) == (200, {"purged": 15, "workers": 3})
    assert [outcomes(clients, each) for each in paths] == [["stored"] * 3] * 5


def test_every_variant_is_purged(proxy: Minato, app: App, admin: int, path: bytes) -> None:
    app.routes[path] = response_bytes(b"body", fields=[*FRESH, (b"Vary", b"Accept-Language")])

    def both(client: Client) -> list[str]:
        languages = (b"de", b"fr")
        return [outcome(client.request(target=path, fields=[(b"Accept-Language", each)])) for each in languages]

    with proxy.client() as client:
        assert both(client) == ["stored", "stored"]
        assert ask(admin, {"url": f"http://test.local{path.decode()}"}) == (200, {"purged": 2, "workers": 3})
        assert both(client) == ["stored", "stored"]


def test_response_that_is_arriving_while_it_is_purged_is_not_kept(
    proxy: Minato, app: App, admin: int, path: bytes
) -> None:
    go_on = threading.Event()

    def answer(connection: OriginConnection, request: Request) -> None:
        connection.send(response_bytes(b"", fields=[*FRESH, (b"Content-Length", b"10")], length=False) + b"12345")
        go_on.wait(10)
        connection.send(b"67890")

    app.routes[path] = answer
    with proxy.client() as client:
        client.send(b"GET %b HTTP/1.1\r\nHost: test.local\r\n\r\n" % path)
        head = client.receive_head()
        assert ask(admin, {"url": f"http://test.local{path.decode()}"})[0] == 200
        go_on.set()
        assert b"".join(client.pieces(head)) == b"1234567890"
        assert outcomes([client], path) == ["stored"]


@pytest.mark.parametrize("content", [ALL, {"url": "http://test.local/shared"}, {"prefix": "http://test.local/sh"}])
def test_request_behind_a_purge_does_not_share_a_response_that_was_asked_for_before(
    minato: StartMinato, origin: MakeOrigin, content: dict[str, Any]
) -> None:
    app = origin()
    go_on = threading.Event()
    bodies = iter([b"old", b"new", b"newer"])

    def answer(connection: OriginConnection, request: Request) -> None:
        body = next(bodies)
        if body == b"old":
            go_on.wait(10)
        connection.send(response_bytes(body, fields=FRESH))

    app.routes[b"/shared"] = answer
    admin = free_port()
    instance = minato(app, workers=1, cache=CACHE, admin={"listen": f"127.0.0.1:{admin}"})
    with instance.client() as early, instance.client() as late:
        early.send(request_bytes(target=b"/shared"))
        wait_until(lambda: app.hits.get(b"/shared"), "the first request to reach the origin")
        assert ask(admin, content)[0] == 200
        assert late.request(target=b"/shared").body == b"new"
        go_on.set()
        assert early.receive().body == b"old"
        assert late.request(target=b"/shared").body != b"old"


def test_generation_that_drains_is_purged_as_well(minato: StartMinato, origin: MakeOrigin, stack: ExitStack) -> None:
    app = origin()
    app.routes[b"/x"] = response_bytes(b"body", fields=FRESH)
    admin = free_port()
    instance = minato(app, workers=2, cache=CACHE, admin={"listen": f"127.0.0.1:{admin}"})
    clients = one_client_of_each(instance, stack)
    fill(clients, b"/x")
    instance.reload()
    assert ask(admin, {"url": "http://test.local/x"}) == (200, {"purged": 2, "workers": 4})
    answers = [client.request(target=b"/x") for client in clients]
    assert [answer.get(b"connection") for answer in answers] == [b"close"] * 2
    assert [outcome(answer) for answer in answers] == ["stored"] * 2


def test_worker_that_was_stopped_purges_before_it_answers_anybody(
    minato: StartMinato, origin: MakeOrigin, stack: ExitStack
) -> None:
    app = origin()
    admin = free_port()
    timeouts = {"heartbeat": 60}
    instance = minato(app, workers=2, cache=CACHE, admin={"listen": f"127.0.0.1:{admin}"}, timeouts=timeouts)
    silent = instance.workers()[0]
    clients = clients_of(instance, silent, 20, stack)
    pairs = [(client, b"/%d/before" % number, b"/%d/after" % number) for number, client in enumerate(clients)]
    for client, before, after in pairs:
        for path in (before, after):
            app.routes[path] = response_bytes(b"body", fields=FRESH)
            fill([client], path)
    silent.suspend()
    # These wait in front of the purge, and what follows them on the same connections is read together with them.
    for client, before, _ in pairs:
        client.send(request_bytes(target=before))
    status, answer = ask(admin, {"prefix": "http://test.local/"})
    assert (status, answer["workers"], answer["missing"]) == (504, 1, 1)
    for client, _, after in pairs:
        client.send(request_bytes(target=after))
    silent.resume()
    for client, _, after in pairs:
        client.receive()
        assert outcome(client.receive()) != "hit"
        assert app.hits[after] == 2


def test_worker_that_is_killed_meanwhile_is_not_waited_for(
    minato: StartMinato, origin: MakeOrigin, stack: ExitStack
) -> None:
    app = origin()
    app.routes[b"/x"] = response_bytes(b"body", fields=FRESH)
    admin = free_port()
    instance = minato(app, workers=3, cache=CACHE, admin={"listen": f"127.0.0.1:{admin}"}, timeouts={"heartbeat": 60})
    clients = one_client_of_each(instance, stack)
    fill(clients, b"/x")
    victim = instance.workers()[0]
    victim.suspend()
    answers: list[Answer] = []
    asker = threading.Thread(target=lambda: answers.append(ask(admin, ALL)))
    asker.start()
    wait_until(lambda: outcomes(clients[1:], b"/x") and app.hits[b"/x"] >= 5, "the others to have purged")
    victim.kill()
    asker.join()
    assert answers == [(200, {"purged": 2, "workers": 2})]
    wait_until(lambda: len(instance.workers()) == 3, "a new worker")
    wait_until(lambda: ask(admin, ALL) == (200, {"purged": 0, "workers": 3}), "the new worker to be asked, too")


def test_many_purges_at_once_are_all_answered(proxy: Minato, admin: int) -> None:
    answers: list[Answer] = []

    def purge() -> None:
        answers.extend(ask(admin, {"tag": f"t{number}"}) for number in range(10))

    threads = [threading.Thread(target=purge) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(200, {"purged": 0, "workers": 3})] * 200


def test_form_of_a_foreign_page_purges_nothing(proxy: Minato, app: App, admin: int, path: bytes) -> None:
    app.routes[path] = response_bytes(b"body", fields=FRESH)
    with proxy.client() as client:
        fill([client], path)
        assert ask(admin, ALL, fields=[(b"Content-Type", b"text/plain")])[0] == 415
        json_type = (b"Content-Type", b"application/json")
        assert ask(admin, ALL, fields=[json_type, (b"Origin", b"http://evil.example")])[0] == 403
        response = fetch(
            admin, b"/purge", method=b"POST", host=b"evil.example", fields=[json_type], body=b'{"all": true}'
        )
        assert response.status == 421
        assert outcomes([client], path) == ["hit"]


def test_proxy_itself_has_no_admin_api(proxy: Minato, app: App) -> None:
    assert b"body_sha256" in fetch(proxy.port, b"/purge", method=b"POST", body=b'{"all": true}').body


def test_purge_without_a_cache_finds_nothing(minato: StartMinato, origin: MakeOrigin) -> None:
    admin = free_port()
    minato(origin(), workers=2, admin={"listen": f"[::1]:{admin}"})
    with Client(admin, host="::1") as client:
        fields = [(b"Content-Type", b"application/json")]
        response = client.request(b"POST", b"/purge", host=b"[::1]", fields=fields, body=b'{"all": true}')
        assert json.loads(response.body) == {"purged": 0, "workers": 2}
        assert json.loads(client.request(target=b"/health", host=b"[::1]").body) == {"status": "ok", "workers": 2}


def test_command_line_purges_the_running_instance(proxy: Minato, app: App, admin: int, path: bytes) -> None:
    app.routes[path] = response_bytes(b"body", fields=[*FRESH, (b"Cache-Tag", b"cli")])
    url = f"http://test.local{path.decode()}"
    with proxy.client() as client:
        for arguments in ([url], ["--prefix", url], ["--tag", "nothing", "--tag", "cli", "http://x.test/"]):
            fill([client], path)
            done = run_minato("purge", "--config", str(proxy.config_path), *arguments)
            assert (done.returncode, done.stdout, done.stderr) == (0, "1 stored responses in 3 workers\n", "")
        refused = run_minato("purge", "--config", str(proxy.config_path), "/path")
        assert refused.returncode == 1
        assert refused.stderr.startswith('minato: url: "/path" is not an absolute URL')


def test_command_line_says_where_it_found_nobody(minato: StartMinato, origin: MakeOrigin) -> None:
    admin = free_port()
    instance = minato(origin(), admin={"listen": f"127.0.0.1:{admin}"})
    instance.signal(signal.SIGTERM)
    assert instance.wait_exit() == 0
    done = run_minato("purge", "--config", str(instance.config_path), "--all")
    assert done.returncode == 1
    assert (
        done.stderr
        == f"minato: cannot reach the admin API on 127.0.0.1:{admin}: connection refused; is minato running?\n"
    )


def test_reload_takes_the_admin_api_away_and_back(minato: StartMinato, origin: MakeOrigin) -> None:
    admin = free_port()
    instance = minato(origin(), admin={"listen": f"127.0.0.1:{admin}"})
    config = instance.config
    instance.write_config(config | {"admin": {"listen": "off"}})
    instance.reload()
    with pytest.raises(ConnectionRefusedError):
        ask(admin, ALL)
    instance.write_config(config)
    instance.reload()
    assert ask(admin, ALL)[0] == 200
