"""The cache's finer rules, as seen on the wire: parts, stale answers, targeted fields, what ends a response."""

from __future__ import annotations

import re
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
    response_bytes,
    wait_until,
)
from .test_cache import outcome

MakeOrigin = Callable[..., Any]
StartMinato = Callable[..., Minato]

Fields = list[tuple[bytes, bytes]]

BODY = b"0123456789"
TAG = (b"ETag", b'"v1"')
FRESH = (b"Cache-Control", b"max-age=60")
STALE = (b"Cache-Control", b"max-age=0")


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


class Ranges:
    """A route that serves ranges of a body, as an origin does; it remembers what it was asked."""

    def __init__(self, body: bytes = BODY, tag: bytes = b'"v1"', *, control: bytes = b"max-age=60") -> None:
        self.body = body
        self.tag = tag
        self.control = control
        self.asked: list[tuple[bytes | None, bytes | None]] = []

    def __call__(self, connection: OriginConnection, request: Request) -> None:
        wanted, condition = request.get(b"range"), request.get(b"if-range")
        self.asked.append((wanted, condition))
        fields = [(b"Cache-Control", self.control), (b"ETag", self.tag), (b"Content-Type", b"text/x")]
        match = re.fullmatch(rb"bytes=(\d+)-(\d*)", wanted or b"")
        if match is None or condition not in (None, self.tag):
            connection.send(response_bytes(self.body, fields=fields))
            return
        first, last = int(match[1]), int(match[2] or len(self.body) - 1)
        fields.append((b"Content-Range", b"bytes %d-%d/%d" % (first, last, len(self.body))))
        connection.send(response_bytes(self.body[first : last + 1], status=b"206 Partial Content", fields=fields))


def get_range(proxy: Minato, path: bytes, value: bytes) -> Response:
    return fetch(proxy.port, path, fields=[(b"Range", value)])


def test_ranges_are_answered_from_a_stored_part(proxy: Minato, app: App, path: bytes) -> None:
    route = app.routes[path] = Ranges()
    assert outcome(get_range(proxy, path, b"bytes=2-6")) == "stored"
    response = get_range(proxy, path, b"bytes=3-4")
    assert (response.status, response.body, outcome(response)) == (206, b"34", "hit")
    assert response.get(b"content-range") == b"bytes 3-4/10"
    assert outcome(get_range(proxy, path, b"bytes=7-8")) == "stored"
    assert get_range(proxy, path, b"bytes=2-8").body == b"2345678"
    assert len(route.asked) == 2


def test_the_whole_is_made_of_a_part_and_what_is_missing(proxy: Minato, app: App, path: bytes) -> None:
    route = app.routes[path] = Ranges()
    get_range(proxy, path, b"bytes=0-5")
    response = fetch(proxy.port, path)
    assert (response.status, response.body) == (200, BODY)
    assert response.get(b"content-length") == b"10"
    assert response.get(b"content-range") is None
    assert response.get(b"cache-status") == b"minato; fwd=partial; fwd-status=206; stored; ttl=60"
    assert route.asked == [(b"bytes=0-5", None), (b"bytes=6-", b'"v1"')]
    response = fetch(proxy.port, path)
    assert (response.body, outcome(response)) == (BODY, "hit")


def test_a_part_of_what_has_changed_is_not_combined(proxy: Minato, app: App, path: bytes) -> None:
    route = app.routes[path] = Ranges()
    get_range(proxy, path, b"bytes=0-5")
    route.body, route.tag = b"abcdefghij", b'"v2"'
    response = fetch(proxy.port, path)
    assert (response.status, response.body) == (200, b"abcdefghij")
    assert fetch(proxy.port, path).body == b"abcdefghij"
    assert len(route.asked) == 2


@pytest.mark.parametrize("fault", ["another tag", "another range", "416", "short", "cut"])
def test_an_upstream_that_completes_wrongly_gets_nothing_wrong_sent_or_stored(
    proxy: Minato, app: App, path: bytes, fault: str
) -> None:
    ranges = app.routes[path] = Ranges()
    get_range(proxy, path, b"bytes=0-5")

    def complete(connection: OriginConnection, request: Request) -> None:
        app.routes[path] = ranges
        tag = b'"v2"' if fault == "another tag" else b'"v1"'
        content_range = b"bytes 7-9/10" if fault == "another range" else b"bytes 6-9/10"
        fields = [FRESH, (b"ETag", tag), (b"Content-Range", content_range)]
        body = {"short": b"67", "another range": b"789"}.get(fault, b"6789")
        status = b"416 Range Not Satisfiable" if fault == "416" else b"206 Partial Content"
        data = response_bytes(body, status=status, fields=fields)
        connection.send(data[:-2] if fault == "cut" else data)
        if fault == "cut":
            connection.close()

    app.routes[path] = complete
    response = fetch(proxy.port, path)
    assert (response.status, response.body) == (200, BODY)
    assert ranges.asked[1:] == [(None, None)]  # once more, and for the whole
    assert outcome(fetch(proxy.port, path)) == "hit"


def test_an_upstream_that_never_sends_the_whole_is_asked_once_more_and_no_oftener(
    proxy: Minato, app: App, path: bytes
) -> None:
    app.routes[path] = Ranges()
    get_range(proxy, path, b"bytes=0-5")
    asked: list[bytes | None] = []

    def cut(connection: OriginConnection, request: Request) -> None:
        asked.append(request.get(b"range"))
        fields = [FRESH, TAG, (b"Content-Range", b"bytes 6-9/10")]
        status = b"206 Partial Content" if asked[-1] else b"200 OK"
        connection.send(response_bytes(b"6789", status=status, fields=fields)[:-2])
        connection.close()

    app.routes[path] = cut
    with pytest.raises(Truncated):
        fetch(proxy.port, path)
    assert asked == [b"bytes=6-", None]


OLD, NEW = b"Tue, 01 Dec 2015 00:00:00 GMT", b"Wed, 02 Dec 2015 00:00:00 GMT"


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ([(b"ETag", b'W/"v1"')], [TAG]),
        ([TAG], [(b"ETag", b'"v2"')]),
        ([TAG, (b"Last-Modified", OLD)], [(b"Last-Modified", NEW)]),
    ],
    ids=["weak", "another", "later"],
)
def test_a_304_about_nothing_that_is_stored_makes_minato_ask_for_the_whole(
    proxy: Minato, app: App, path: bytes, method: bytes, stored: Fields, told: Fields
) -> None:
    asked: list[tuple[bytes | None, ...]] = []

    def route(connection: OriginConnection, request: Request) -> None:
        names = (b"if-none-match", b"if-modified-since", b"range")
        asked.append(tuple(request.get(name) for name in names))
        if len(asked) > 1 and any(asked[-1]):
            connection.send(response_bytes(status=b"304 Not Modified", fields=told))
            return
        data = response_bytes(b"old" if len(asked) == 1 else b"newer", fields=[STALE, *stored])
        connection.send(data[:-5] if request.method == b"HEAD" else data)

    app.routes[path] = route
    fetch(proxy.port, path)
    with Client(proxy.port) as client:
        response = client.request(method, path, fields=[(b"If-None-Match", b'"mine"'), (b"Range", b"bytes=0-1")])
        assert (response.status, response.body) == (200, b"newer" if method == b"GET" else b"")
        assert response.get(b"content-length") == b"5"
        assert len(asked) == 3 and asked[1][0] == dict(stored)[b"ETag"] and asked[2] == (None, None, None)
        assert client.request(target=path).body == b"newer"


def test_a_304_to_no_condition_is_no_answer(proxy: Minato, app: App, path: bytes) -> None:
    answers = [response_bytes(BODY, fields=[(b"Cache-Control", b"max-age=0, must-revalidate"), TAG])]
    answers += [response_bytes(status=b"304 Not Modified", fields=[(b"ETag", b'"v2"')])] * 2
    app.routes[path] = lambda connection, request: connection.send(answers.pop(0))
    fetch(proxy.port, path)
    assert fetch(proxy.port, path).status == 504
    assert not answers


def test_a_client_that_leaves_while_the_rest_is_fetched_leaves_the_part_as_it_was(
    proxy: Minato, app: App, path: bytes
) -> None:
    ranges = app.routes[path] = Ranges()
    get_range(proxy, path, b"bytes=0-5")

    def complete(connection: OriginConnection, request: Request) -> None:
        fields = [FRESH, TAG, (b"Content-Range", b"bytes 6-9/10")]
        connection.send(response_bytes(b"6789", status=b"206 Partial Content", fields=fields)[:-2])
        connection.saw_end.wait(10) or connection.read_head()

    app.routes[path] = complete
    with Client(proxy.port) as client:
        client.send(b"GET %b HTTP/1.1\r\nHost: test.local\r\n\r\n" % path)
        wait_until(lambda: app.hits[path] == 2, "the rest to be asked for")
    app.routes[path] = ranges
    assert get_range(proxy, path, b"bytes=1-2").body == b"12"
    assert fetch(proxy.port, path).body == BODY


def test_several_ranges_are_a_multipart(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = response_bytes(BODY, fields=[FRESH, TAG, (b"Content-Type", b"text/x")])
    fetch(proxy.port, path)
    response = get_range(proxy, path, b"bytes=0-1,-2")
    assert (response.status, outcome(response)) == (206, "hit")
    boundary = (response.get(b"content-type") or b"").removeprefix(b"multipart/byteranges; boundary=")
    parts = response.body.split(b"--" + boundary)
    assert parts[0] == b"" and parts[3] == b"--\r\n"
    assert parts[1] == b"\r\ncontent-type: text/x\r\ncontent-range: bytes 0-1/10\r\n\r\n01\r\n"
    assert parts[2].endswith(b"content-range: bytes 8-9/10\r\n\r\n89\r\n")


def failing(status: bytes, *fields: tuple[bytes, bytes], body: bytes = BODY) -> Callable[..., None]:
    """A route: a response with those fields first, then failures; b"" closes the connection instead."""
    first = [response_bytes(body, fields=fields)]

    def route(connection: OriginConnection, request: Request) -> None:
        if first:
            connection.send(first.pop())
        elif status:
            connection.send(response_bytes(b"sorry" * 50_000, status=status))
        else:
            connection.close()

    return route


SIE = (b"Cache-Control", b"max-age=0, stale-if-error=60")


@pytest.mark.parametrize("status", [b"500 Oops", b"502 Bad", b"503 Busy", b"504 Slow", b""])
@pytest.mark.parametrize("validator", [(), (TAG,)], ids=["plain", "validated"])
def test_stale_if_error_answers_where_the_upstream_fails(
    proxy: Minato, app: App, path: bytes, status: bytes, validator: tuple[tuple[bytes, bytes], ...]
) -> None:
    control = SIE if validator else (b"Cache-Control", b"max-age=1, stale-if-error=60")
    app.routes[path] = failing(status, control, *validator)
    fetch(proxy.port, path)
    if not validator:
        time.sleep(1.1)
    with Client(proxy.port) as client:
        for _ in range(2):  # the connection stays in order
            response = client.request(target=path)
            assert (response.status, response.body) == (200, BODY)
            member = rb"fwd-status=%b; ttl=-?\d+; detail=stale-if-error" % status[:3]
            expected = rb"minato; fwd=stale; " + (member if status else rb"ttl=-?\d+; detail=disconnected")
            assert re.fullmatch(expected, response.get(b"cache-status") or b"")
            assert response.get(b"age") is not None


def test_other_errors_and_errors_without_permission_are_passed_on(proxy: Minato, app: App, path: bytes) -> None:
    for number, (status, control) in enumerate([(b"404 No", SIE), (b"503 Busy", STALE), (b"501 No", SIE)]):
        target = path + b"/%d" % number
        app.routes[target] = failing(status, control, TAG)
        fetch(proxy.port, target)
        assert fetch(proxy.port, target).status == int(status[:3])


@pytest.mark.parametrize("word", [b"must-revalidate", b"proxy-revalidate", b"s-maxage=0", b"no-cache"])
def test_what_must_be_validated_is_a_504_where_it_cannot_be(proxy: Minato, app: App, path: bytes, word: bytes) -> None:
    app.routes[path] = failing(b"", (b"Cache-Control", b"max-age=0, stale-if-error=60, " + word), TAG)
    fetch(proxy.port, path)
    assert fetch(proxy.port, path).status == 504


def test_with_no_upstream_left_what_is_stale_answers(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    app.routes[b"/page"] = response_bytes(BODY, fields=[STALE, TAG])
    proxy = minato(app, cache={"enabled": True, "ttl": 0}, health={"interval": 1})
    fetch(proxy.port, b"/page")
    app.stop()
    response = fetch(proxy.port, b"/page")
    assert (response.status, response.body) == (200, BODY)
    proxy.wait_for_log("is down")
    response = fetch(proxy.port, b"/page")
    assert (response.status, response.body) == (200, BODY)
    assert re.fullmatch(rb"minato; fwd=stale; ttl=-\d+; detail=disconnected", response.get(b"cache-status") or b"")
    assert fetch(proxy.port, b"/other").status == 503
    assert fetch(proxy.port, b"/page", fields=[(b"Cache-Control", b"no-cache")]).status == 503


def test_a_targeted_field_counts_and_is_passed_on(proxy: Minato, app: App, path: bytes) -> None:
    fields = [(b"Cache-Control", b"no-store"), (b"CDN-Cache-Control", b"max-age=60")]
    app.routes[path] = response_bytes(BODY, fields=fields)
    assert outcome(fetch(proxy.port, path)) == "stored"
    response = fetch(proxy.port, path)
    assert outcome(response) == "hit"
    assert response.get(b"cdn-cache-control") == b"max-age=60"


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ([(b"Cache-Control", b"no-store")], b"no-store"),
        ([FRESH, (b"Vary", b"*")], b"vary"),
        ([(b"Content-Length", b"0")], b"no-lifetime"),
    ],
)
def test_cache_status_says_why_a_response_is_not_stored(
    proxy: Minato, app: App, path: bytes, fields: list[tuple[bytes, bytes]], detail: bytes
) -> None:
    app.routes[path] = response_bytes(b"", fields=fields, length=(b"Content-Length", b"0") not in fields)
    assert fetch(proxy.port, path).get(b"cache-status") == b"minato; fwd=uri-miss; detail=" + detail


def test_a_post_ends_what_its_answer_names(proxy: Minato, app: App, path: bytes) -> None:
    new, form = path + b"/new", path + b"/form"
    app.routes[new] = response_bytes(BODY, fields=[FRESH])
    app.routes[form] = response_bytes(b"", status=b"303 See Other", fields=[(b"Location", new)])
    fetch(proxy.port, new)
    assert outcome(fetch(proxy.port, new)) == "hit"
    fetch(proxy.port, form, method=b"POST", body=b"x")
    assert outcome(fetch(proxy.port, new)) == "stored"


def test_a_post_can_store_what_get_is_answered_with(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = response_bytes(b"posted", fields=[FRESH, (b"Content-Location", path)])
    assert (
        fetch(proxy.port, path, method=b"POST", body=b"x").get(b"cache-status") == b"minato; fwd=method; stored; ttl=60"
    )
    response = fetch(proxy.port, path)
    assert (response.body, outcome(response)) == (b"posted", "hit")


def test_head_freshens_and_head_ends(proxy: Minato, app: App, path: bytes) -> None:
    control, tag = b"max-age=1", b'"v1"'

    def route(connection: OriginConnection, request: Request) -> None:
        data = response_bytes(BODY, fields=[(b"Cache-Control", control), (b"ETag", tag)])
        connection.send(data[: -len(BODY)] if request.method == b"HEAD" else data)

    app.routes[path] = route
    fetch(proxy.port, path)
    control = b"max-age=60"
    fetch(proxy.port, path, method=b"HEAD", fields=[(b"Cache-Control", b"max-age=0")])
    time.sleep(1.1)
    assert outcome(fetch(proxy.port, path)) == "hit"
    tag = b'"v2"'
    fetch(proxy.port, path, method=b"HEAD", fields=[(b"Cache-Control", b"max-age=0"), (b"If-None-Match", b'"x"')])
    assert outcome(fetch(proxy.port, path)) == "stored"


@pytest.mark.parametrize(("length", "expected"), [(10, "hit"), (11, "stored")])
def test_a_head_of_another_length_ends_what_is_stored(
    proxy: Minato, app: App, path: bytes, length: int, expected: str
) -> None:
    def route(connection: OriginConnection, request: Request) -> None:
        is_head = request.method == b"HEAD"
        data = response_bytes(b"x" * length if is_head else BODY, fields=[FRESH])
        connection.send(data[:-length] if is_head else data)

    app.routes[path] = route
    fetch(proxy.port, path)
    head = fetch(proxy.port, path, method=b"HEAD", fields=[(b"Cache-Control", b"no-cache")])
    assert head.get(b"content-length") == b"%d" % length
    assert outcome(fetch(proxy.port, path)) == expected


def test_withheld_fields_reach_the_one_who_caused_them_alone(proxy: Minato, app: App, path: bytes) -> None:
    control = (b"Cache-Control", b'max-age=60, no-cache="set-cookie", private=x-me')
    app.routes[path] = response_bytes(
        BODY, fields=[control, (b"Set-Cookie", b"s=1"), (b"X-Me", b"1"), (b"X-All", b"2")]
    )
    first, second = fetch(proxy.port, path), fetch(proxy.port, path)
    assert (first.get(b"set-cookie"), first.get(b"x-me")) == (b"s=1", b"1")
    assert outcome(second) == "hit"
    assert (second.get(b"set-cookie"), second.get(b"x-me"), second.get(b"x-all")) == (None, None, b"2")


def test_interim_responses_are_passed_on_and_not_stored(proxy: Minato, app: App, path: bytes) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nCache-Control: no-store\r\n\r\n"
    app.routes[path] = hint + response_bytes(BODY, fields=[FRESH])
    with Client(proxy.port) as client:
        first, second = client.request(target=path), client.request(target=path)
    assert [head.status for head in first.interim] == [103]
    assert (outcome(first), outcome(second), second.interim) == ("stored", "hit", [])
    assert second.get(b"link") is None


def test_trailer_fields_are_not_stored(proxy: Minato, app: App, path: bytes) -> None:
    app.routes[path] = (
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"a\r\n0123456789\r\n0\r\nX-T: 1\r\nCache-Control: no-store\r\n\r\n"
    )
    assert fetch(proxy.port, path).body == BODY
    response = fetch(proxy.port, path)
    assert (response.body, outcome(response)) == (BODY, "hit")
    assert response.get(b"x-t") is None
    assert response.get(b"trailer") is None
