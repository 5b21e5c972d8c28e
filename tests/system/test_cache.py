"""Issue line 7, the cache: what is stored, reused, validated and thrown out, and what must never be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Instances
from .harness import (
    App,
    Client,
    Minato,
    OriginConnection,
    Request,
    Response,
    Truncated,
    fetch,
    request_bytes,
    response_bytes,
    wait_until,
)
from .harness.app import pattern, pattern_sha256

StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Any]
Fields = list[tuple[bytes, bytes]]

FRESH = [(b"Cache-Control", b"max-age=60")]


@pytest.fixture(scope="module")
def app(module_origin: Callable[..., App]) -> App:
    return module_origin()


@pytest.fixture(scope="module")
def proxy(module_instances: Instances, app: App) -> Minato:
    return module_instances.start(app, cache={"enabled": True, "max_body_size": 100_000, "ttl": 0})


@pytest.fixture
def path(request: pytest.FixtureRequest) -> bytes:
    """A path of the test's own: nothing is stored under it yet."""
    return b"/" + request.node.name.encode().translate(None, b"[]?#% ")


def outcome(response: Response) -> str:
    """hit, stored, or why not, out of Cache-Status."""
    status = (response.get(b"cache-status") or b"").decode()
    assert status.startswith("minato"), status
    if "; hit" in status:
        return "hit"
    return "stored" if "; stored" in status else "passed"


def twice(proxy: Minato, path: bytes, fields: Fields = (), **options: Any) -> list[str]:
    """Ask twice; the two outcomes."""
    return [outcome(fetch(proxy.port, path, fields=fields, **options)) for _ in range(2)]


def test_second_request_is_a_hit_with_age_and_the_same_bytes(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = response_bytes(b"body", fields=[*FRESH, (b"Content-Type", b"text/x"), (b"X-Extra", b"1")])
    first, second = fetch(proxy.port, path), fetch(proxy.port, path)
    assert (outcome(first), outcome(second)) == ("stored", "hit")
    assert first.body == second.body == b"body"
    assert second.get(b"content-type") == b"text/x" and second.get(b"x-extra") == b"1"
    assert int(second.get(b"age") or b"-1") in range(5)
    assert app.hits[path] == 1


def test_query_is_part_of_the_key(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = response_bytes(b"body", fields=FRESH)
    assert [outcome(fetch(proxy.port, path + query)) for query in (b"?a", b"?b", b"?a", b"")] == [
        "stored",
        "stored",
        "hit",
        "stored",
    ]


def test_host_is_part_of_the_key(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    app.routes[b"/"] = response_bytes(b"body", fields=FRESH)
    instance = minato(app, cache={"enabled": True}, service_keys={"hosts": ["http://*.test/"]})
    assert [outcome(fetch(instance.port, host=host)) for host in (b"a.test", b"b.test", b"A.Test")] == [
        "stored",
        "stored",
        "hit",
    ]


@pytest.mark.parametrize(
    ("directives", "expected"),
    [
        (b"max-age=60", "hit"),
        (b"s-maxage=60, max-age=0", "hit"),
        (b"max-age=0, s-maxage=60", "hit"),
        (b"public, max-age=60", "hit"),
        (b"max-age=60, no-store", "passed"),
        (b"max-age=60, private", "passed"),
        (b"no-store", "passed"),
        (b"max-age=60, s-maxage=0", "not a hit"),
        (b"max-age=0", "not a hit"),
        (b"max-age=60, no-cache", "not a hit"),
        (b"max-age=nonsense", "not a hit"),
        (b"MAX-AGE=60", "hit"),
        (b"max-age=60, x-unknown=1", "hit"),
    ],
)
def test_response_directives_decide(proxy: Minato, app: App, directives: bytes, expected: str, path: bytes) -> None:
    path += b"".join(b"%02x" % byte for byte in directives)
    app.routes[path] = response_bytes(b"body", fields=[(b"Cache-Control", directives)])
    second = twice(proxy, path)[1]
    assert second != "hit" if expected == "not a hit" else second == expected


def test_expires_gives_a_lifetime(proxy: Minato, app: App, path: bytes) -> None:
    now_s = time.time()
    dates = [
        time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now_s + delta)).encode() for delta in (0, 100, -100)
    ]
    app.routes[path + b"/later"] = response_bytes(b"x", fields=[(b"Date", dates[0]), (b"Expires", dates[1])])
    app.routes[path + b"/past"] = response_bytes(b"x", fields=[(b"Date", dates[0]), (b"Expires", dates[2])])
    app.routes[path + b"/zero"] = response_bytes(b"x", fields=[(b"Date", dates[0]), (b"Expires", b"0")])
    assert twice(proxy, path + b"/later")[1] == "hit"
    assert twice(proxy, path + b"/past")[1] != "hit"
    assert twice(proxy, path + b"/zero")[1] != "hit"


def test_age_of_the_upstream_counts(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = response_bytes(b"x", fields=[*FRESH, (b"Age", b"50")])
    fetch(proxy.port, path)
    hit = fetch(proxy.port, path)
    assert outcome(hit) == "hit" and int(hit.get(b"age") or b"0") >= 50
    app.routes[path + b"/old"] = response_bytes(b"x", fields=[*FRESH, (b"Age", b"61")])
    assert twice(proxy, path + b"/old")[1] != "hit"


def test_fresh_response_goes_stale_with_time(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = response_bytes(b"x", fields=[(b"Cache-Control", b"max-age=1")])
    assert twice(proxy, path)[1] == "hit"
    wait_until(lambda: outcome(fetch(proxy.port, path)) != "hit", "the response to go stale", timeout_s=4, every_s=0.2)


def test_ttl_is_for_responses_without_a_lifetime_of_their_own(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    app.routes[b"/bare"] = response_bytes(b"x")
    app.routes[b"/own"] = response_bytes(b"x", fields=[(b"Cache-Control", b"max-age=0")])
    instance = minato(app, cache={"enabled": True, "ttl": 1})
    assert twice(instance, b"/bare")[1] == "hit"
    assert twice(instance, b"/own")[1] != "hit"
    wait_until(lambda: outcome(fetch(instance.port, b"/bare")) != "hit", "the ttl to pass", timeout_s=4, every_s=0.2)


def test_ttl_is_absolute(minato: StartMinato, origin: MakeOrigin) -> None:
    """Asking again and again does not keep it alive."""
    app = origin()
    app.routes[b"/"] = response_bytes(b"x")
    instance = minato(app, cache={"enabled": True, "ttl": 1})
    wait_until(lambda: fetch(instance.port) and app.hits[b"/"] >= 2, "a second fetch", timeout_s=4, every_s=0.1)


def test_cache_is_off_by_default(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    app.routes[b"/"] = response_bytes(b"x", fields=FRESH)
    instance = minato(app)
    for _ in range(2):
        assert fetch(instance.port).values(b"cache-status") == []
    assert app.hits[b"/"] == 2


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([(b"Cache-Control", b"no-cache")], "not a hit"),
        ([(b"Cache-Control", b"max-age=0")], "not a hit"),
        ([(b"Pragma", b"no-cache")], "not a hit"),
        ([(b"Cache-Control", b"max-age=30")], "hit"),
        ([(b"Cookie", b"a=b")], "hit"),
        ([(b"Cache-Control", b"only-if-cached")], "hit"),
    ],
)
def test_request_directives_decide(proxy: Minato, app: App, path: bytes, fields: Fields, expected: str) -> None:
    path += b"".join(b"%02x" % byte for byte in fields[0][1])
    app.routes[path] = response_bytes(b"x", fields=FRESH)
    assert outcome(fetch(proxy.port, path)) == "stored"
    found = outcome(fetch(proxy.port, path, fields=fields))
    assert found != "hit" if expected == "not a hit" else found == expected


def test_response_to_a_no_store_request_is_not_stored(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = response_bytes(b"x", fields=FRESH)
    assert twice(proxy, path, fields=[(b"Cache-Control", b"no-store")]) == ["passed", "passed"]
    assert outcome(fetch(proxy.port, path)) == "stored"


def test_only_if_cached_without_a_stored_response_is_504(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = response_bytes(b"x", fields=FRESH)
    assert fetch(proxy.port, path, fields=[(b"Cache-Control", b"only-if-cached")]).status == 504
    assert path not in app.hits


def test_vary_selects_by_the_named_fields(proxy: Minato, app: App, path: bytes) -> None:
    def route(connection: OriginConnection, request: Request) -> None:
        language = request.get(b"accept-language") or b"none"
        connection.send(response_bytes(language, fields=[*FRESH, (b"Vary", b"Accept-Language")]))

    app.routes[path] = route
    seen = []
    for language in (b"de", b"fr", b"de", b"fr"):
        response = fetch(proxy.port, path, fields=[(b"Accept-Language", language)])
        assert response.body == language
        seen.append(outcome(response))
    assert seen == ["stored", "stored", "hit", "hit"]
    assert fetch(proxy.port, path).body == b"none"


def test_vary_star_is_never_reused(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = response_bytes(b"x", fields=[*FRESH, (b"Vary", b"*")])
    assert twice(proxy, path)[1] != "hit"


@pytest.mark.parametrize(
    ("directives", "hit"),
    [
        (b"max-age=60", False),
        (b"max-age=60, public", True),
        (b"s-maxage=60", True),
        (b"max-age=60, must-revalidate", True),
    ],
)
def test_authorized_responses_are_shared_only_where_they_say_so(
    proxy: Minato, app: App, path: bytes, directives: bytes, hit: bool
) -> None:
    path += b"".join(b"%02x" % byte for byte in directives)
    app.routes[path] = response_bytes(b"secret", fields=[(b"Cache-Control", directives)])
    assert outcome(fetch(proxy.port, path, fields=[(b"Authorization", b"Basic eDp5")])) == (
        "stored" if hit else "passed"
    )
    assert (outcome(fetch(proxy.port, path)) == "hit") is hit


@pytest.mark.parametrize(
    ("line", "hit"),
    [
        ((b"Last-Modified", b"Mon, 01 Jan 2024 00:00:00 GMT"), False),
        ((b"Cache-Control", b"max-age=60"), True),
        ((b"Cache-Control", b"s-maxage=60"), True),
    ],
    ids=["guessed", "max-age", "s-maxage"],
)
def test_responses_that_set_cookies_are_shared_only_where_the_origin_says_how_long(
    proxy: Minato, app: App, path: bytes, line: tuple[bytes, bytes], hit: bool
) -> None:
    app.routes[path] = response_bytes(b"x", fields=[line, (b"Set-Cookie", b"session=1")])
    assert (twice(proxy, path)[1] == "hit") is hit


ETAG = [(b"ETag", b'"v1"'), (b"Last-Modified", b"Mon, 01 Jan 2024 00:00:00 GMT")]


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ([(b"If-None-Match", b'"v1"')], 304),
        ([(b"If-None-Match", b'W/"v1"')], 304),
        ([(b"If-None-Match", b'"v0", "v1"')], 304),
        ([(b"If-None-Match", b"*")], 304),
        ([(b"If-None-Match", b'"v2"')], 200),
        ([(b"If-Modified-Since", b"Mon, 01 Jan 2024 00:00:00 GMT")], 304),
        ([(b"If-Modified-Since", b"Tue, 02 Jan 2024 00:00:00 GMT")], 304),
        ([(b"If-Modified-Since", b"Sun, 31 Dec 2023 00:00:00 GMT")], 200),
        ([(b"If-Modified-Since", b"nonsense")], 200),
        ([(b"If-None-Match", b'"v2"'), (b"If-Modified-Since", b"Tue, 02 Jan 2024 00:00:00 GMT")], 200),
    ],
)
def test_conditional_requests_are_answered_from_the_store(
    proxy: Minato, app: App, condition: Fields, status: int
) -> None:
    app.routes[b"/conditional"] = response_bytes(b"body", fields=[*FRESH, *ETAG])
    fetch(proxy.port, b"/conditional")
    response = fetch(proxy.port, b"/conditional", fields=condition)
    assert response.status == status and outcome(response) == "hit"
    assert response.body == (b"" if status == 304 else b"body")
    assert response.get(b"etag") == b'"v1"'
    assert app.hits[b"/conditional"] == 1


def validating_route(body: bytes, asked: list[bytes | None]) -> Callable[[OriginConnection, Request], None]:
    """Always stale, never changed."""
    fields = [(b"Cache-Control", b"max-age=0"), (b"ETag", b'"v1"')]

    def route(connection: OriginConnection, request: Request) -> None:
        asked.append(request.get(b"if-none-match"))
        if asked[-1] == b'"v1"':
            connection.send(
                response_bytes(status=b"304 Not Modified", fields=[*fields, (b"X-New", b"1")], length=False)
            )
        else:
            connection.send(response_bytes(body, fields=fields))

    return route


def test_stale_response_is_validated_and_answered_from_the_store(proxy: Minato, app: App, path: bytes) -> None:
    asked: list[bytes | None] = []
    app.routes[path] = validating_route(b"the body", asked)
    first, second = fetch(proxy.port, path), fetch(proxy.port, path)
    assert asked == [None, b'"v1"']
    assert second.status == 200 and second.body == b"the body"
    assert "fwd=stale" in (second.get(b"cache-status") or b"").decode()
    assert second.get(b"x-new") == b"1"  # the 304 freshens the stored fields
    assert first.body == second.body


def test_client_with_a_condition_of_its_own_gets_304_out_of_a_validation(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = validating_route(b"the body", [])
    fetch(proxy.port, path)
    response = fetch(proxy.port, path, fields=[(b"If-None-Match", b'"v1"')])
    assert response.status == 304 and response.body == b""


def test_changed_response_replaces_the_stale_one(proxy: Minato, app: App, path: bytes) -> None:
    versions = iter([b"1", b"2"])

    def route(connection: OriginConnection, request: Request) -> None:
        body = next(versions)
        directives = b"max-age=0" if body == b"1" else b"max-age=60"
        connection.send(response_bytes(body, fields=[(b"ETag", b'"%s"' % body), (b"Cache-Control", directives)]))

    app.routes[path] = route
    assert [fetch(proxy.port, path).body for _ in range(3)] == [b"1", b"2", b"2"]


def test_head_is_answered_from_a_stored_get(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = response_bytes(b"body", fields=FRESH)
    fetch(proxy.port, path)
    with Client(proxy.port) as client:
        response = client.request(b"HEAD", path)
        assert outcome(response) == "hit" and response.get(b"content-length") == b"4"
        assert client.request(b"GET", path).body == b"body"


def test_head_does_not_store_an_empty_body(proxy: Minato, app: App, path: bytes) -> None:
    def route(connection: OriginConnection, request: Request) -> None:
        answer = response_bytes(b"body", fields=FRESH)
        connection.send(answer[:-4] if request.method == b"HEAD" else answer)

    app.routes[path] = route
    assert fetch(proxy.port, path, method=b"HEAD").body == b""
    assert fetch(proxy.port, path).body == b"body"


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH"])
def test_unsafe_methods_pass_and_invalidate(proxy: Minato, app: App, path: bytes, method: bytes) -> None:
    app.routes[path] = response_bytes(b"x", fields=FRESH)
    assert twice(proxy, path)[1] == "hit"
    fetch(proxy.port, path, method=method, body=b"data")
    assert app.hits[path] == 2
    assert outcome(fetch(proxy.port, path)) == "stored"


@pytest.mark.parametrize("method", [b"DELETE", b"PURGE"])
def test_unsafe_methods_invalidate_although_they_ask_for_another_protocol(
    proxy: Minato, app: App, path: bytes, method: bytes
) -> None:
    app.routes[path] = response_bytes(b"x", fields=FRESH)
    assert twice(proxy, path)[1] == "hit"
    fetch(proxy.port, path, method=method, fields=[(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")])
    assert outcome(fetch(proxy.port, path)) == "stored"


def test_get_with_a_body_is_neither_answered_nor_stored(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = response_bytes(b"x", fields=FRESH)
    assert twice(proxy, path, body=b"poison") == ["passed", "passed"]
    assert outcome(fetch(proxy.port, path)) == "stored"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 100\r\n\r\npart",
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    ],
)
def test_incomplete_response_is_never_stored(minato: StartMinato, origin: MakeOrigin, answer: bytes) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(answer)

    scripted = origin(script)
    instance = minato(scripted, cache={"enabled": True}, service_keys={"retries": 0})
    for number in range(1, 4):
        with instance.client() as client:
            client.send(request_bytes())
            with pytest.raises((Truncated, ConnectionError)):
                client.receive()
        assert len(scripted.requests) == number


def test_response_whose_client_left_is_not_stored_in_part(proxy: Minato, app: App, path: bytes) -> None:
    begun, left = threading.Event(), threading.Event()

    def route(connection: OriginConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 8\r\n\r\nhalf")
        begun.set()
        left.wait(10)
        connection.send(b"half")

    app.routes[path] = route
    with Client(proxy.port) as client:
        client.send(request_bytes(target=path))
        assert begun.wait(10)
        client.receive_head()
    left.set()
    assert fetch(proxy.port, path).body == b"halfhalf"


def test_response_streams_while_it_is_stored(proxy: Minato, app: App, path: bytes) -> None:
    go_on = threading.Event()

    def route(connection: OriginConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.send(b"5\r\nfirst\r\n")
        go_on.wait(10)
        connection.send(b"6\r\nsecond\r\n0\r\n\r\n")

    app.routes[path] = route
    with Client(proxy.port) as client:
        client.send(request_bytes(target=path))
        pieces = client.pieces(client.receive_head())
        assert next(pieces) == b"first"
        go_on.set()
        assert b"".join(pieces) == b"second"
    hit = fetch(proxy.port, path)
    assert outcome(hit) == "hit" and hit.body == b"firstsecond"


@pytest.mark.parametrize(("size", "hit"), [(100_000, True), (100_001, False)])
@pytest.mark.parametrize("chunked", [False, True])
def test_larger_than_max_body_size_is_not_stored(
    proxy: Minato, app: App, path: bytes, size: int, hit: bool, chunked: bool
) -> None:
    def route(connection: OriginConnection, request: Request) -> None:
        body = b"".join(pattern(size))
        if chunked:
            connection.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n")
            connection.send(b"%x\r\n%s\r\n0\r\n\r\n" % (size, body))
        else:
            connection.send(response_bytes(body, fields=FRESH))

    app.routes[path] = route
    for number in range(2):
        with Client(proxy.port) as client:
            client.send(request_bytes(target=path))
            head = client.receive_head()
            assert client.digest(head) == (size, pattern_sha256(size))
            assert (outcome(head) == "hit") is (hit and number == 1)


@pytest.mark.parametrize("status", [500, 502, 503, 302, 206, 418])
def test_statuses_that_are_not_stored_without_being_told(minato: StartMinato, origin: MakeOrigin, status: int) -> None:
    app = origin()
    app.routes[b"/"] = response_bytes(b"x", status=b"%d X" % status)
    assert twice(minato(app, cache={"enabled": True}), b"/")[1] != "hit"


def test_own_error_answers_are_never_stored(minato: StartMinato, origin: MakeOrigin) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        if len(connection.origin.requests) == 1:
            connection.reset()
        else:
            connection.send(response_bytes(b"x", fields=FRESH))

    instance = minato(origin(script), cache={"enabled": True}, service_keys={"retries": 0})
    assert [fetch(instance.port).status for _ in range(3)] == [502, 200, 200]


def evicted(instance: Minato, asked: bytes) -> list[str]:
    return [outcome(fetch(instance.port, b"/%c" % letter)) for letter in asked]


@pytest.mark.parametrize(("kind", "kept"), [("LRU", b"b"), ("LFU", b"a")])
def test_full_cache_throws_out_by_its_kind(minato: StartMinato, origin: MakeOrigin, kind: str, kept: bytes) -> None:
    app = origin()
    for letter in b"abc":
        app.routes[b"/%c" % letter] = response_bytes(b"%c" % letter, fields=FRESH)
    instance = minato(app, cache={"enabled": True, "type": kind, "capacity": 2})
    evicted(instance, b"aaaab" + b"c")
    assert evicted(instance, kept) == ["hit"]


def test_lru_keeps_what_was_asked_last(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    for letter in b"abc":
        app.routes[b"/%c" % letter] = response_bytes(b"%c" % letter, fields=FRESH)
    instance = minato(app, cache={"enabled": True, "capacity": 2})
    evicted(instance, b"ab" + b"a" + b"c")
    assert evicted(instance, b"acb") == ["hit", "hit", "stored"]


def test_max_memory_bounds_what_is_kept(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    for number in range(20):
        app.routes[b"/%d" % number] = response_bytes(b"x" * 50_000, fields=FRESH)
    instance = minato(app, cache={"enabled": True, "capacity": 1000, "max_memory": 500_000})
    for number in range(20):
        fetch(instance.port, b"/%d" % number)
    hits = sum(outcome(fetch(instance.port, b"/%d" % number)) == "hit" for number in reversed(range(20)))
    assert 1 <= hits <= 9


def test_cache_is_fresh_after_a_reload(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    app.routes[b"/"] = response_bytes(b"x", fields=FRESH)
    instance = minato(app, cache={"enabled": True})
    assert twice(instance, b"/") == ["stored", "hit"]
    instance.reload(wait_old_gone=True)
    assert twice(instance, b"/") == ["stored", "hit"]


def test_hit_keeps_the_connection_and_pipelining(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = response_bytes(b"cached", fields=FRESH)
    fetch(proxy.port, path)
    with Client(proxy.port) as client:
        client.send((request_bytes(target=path) + request_bytes(target=b"/status/200")) * 5)
        for _ in range(5):
            assert client.receive().body == b"cached"
            assert client.receive().body == b"status\n"


def test_hits_are_served_while_no_upstream_is_healthy(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    app.routes[b"/"] = response_bytes(b"cached", fields=FRESH)
    instance = minato(app, cache={"enabled": True}, health={"interval": 0.3})
    fetch(instance.port)
    app.stop()
    instance.wait_for_log(r"is down")
    assert outcome(fetch(instance.port)) == "hit"
    assert fetch(instance.port, b"/other").status == 503


def test_hop_by_hop_fields_are_not_stored(proxy: Minato, app: App, path: bytes) -> None:
    fields = [*FRESH, (b"Connection", b"X-Mine"), (b"X-Mine", b"1"), (b"Keep-Alive", b"timeout=9")]
    app.routes[path] = response_bytes(b"x", fields=fields)
    fetch(proxy.port, path)
    hit = fetch(proxy.port, path)
    assert outcome(hit) == "hit" and hit.values(b"x-mine") == [] and hit.values(b"keep-alive") == []


def test_forwarded_host_cannot_poison_the_cache(proxy: Minato, app: App, path: bytes) -> None:
    def route(connection: OriginConnection, request: Request) -> None:
        shown = request.get(b"x-forwarded-host") or request.get(b"host") or b""
        connection.send(response_bytes(b"https://" + shown, fields=FRESH))

    app.routes[path] = route
    poisoned = fetch(proxy.port, path, fields=[(b"X-Forwarded-Host", b"evil.test")])
    assert poisoned.body == b"https://test.local"
    assert fetch(proxy.port, path).body == b"https://test.local"


def test_http_1_0_client_gets_hits_too(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = response_bytes(b"cached", fields=FRESH)
    fetch(proxy.port, path)
    with Client(proxy.port) as client:
        response = client.request(target=path, version=b"1.0")
        assert outcome(response) == "hit" and response.body == b"cached" and client.is_closed()


def test_partial_response_of_the_upstream_is_stored_as_no_more_than_it_is(proxy: Minato, app: App, path: bytes) -> None:
    fields = [*FRESH, (b"ETag", b'"r"'), (b"Content-Range", b"bytes 2-4/10")]
    app.routes[path] = response_bytes(b"234", status=b"206 Partial Content", fields=fields)
    for expected in ("stored", "hit"):
        response = fetch(proxy.port, path, fields=[(b"Range", b"bytes=2-4")])
        assert (response.status, response.body, outcome(response)) == (206, b"234", expected)
        assert response.get(b"content-range") == b"bytes 2-4/10"
    app.routes[path] = response_bytes(b"0123456789", fields=FRESH)
    assert fetch(proxy.port, path).body == b"0123456789"


def test_range_request_is_answered_rightly_from_the_store(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = response_bytes(b"0123456789", fields=[*FRESH, (b"ETag", b'"r"')])
    fetch(proxy.port, path)
    response = fetch(proxy.port, path, fields=[(b"Range", b"bytes=2-4")])
    assert (response.status, response.body) in ((200, b"0123456789"), (206, b"234"))
    assert fetch(proxy.port, path).body == b"0123456789"
