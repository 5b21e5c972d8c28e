"""The cache section of a service, end to end: bypass, keys, ignored parameters, lifetimes, and changes by a reload."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

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
    make_config,
    request_bytes,
    response_bytes,
    service,
)
from .harness.proxy import run_minato

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]

FRESH = [(b"Cache-Control", b"max-age=60")]
RULES = {
    "ttl": 60,
    "bypass_paths": ["/account", "/api/private"],
    "bypass_cookies": ["session", "wordpress_logged_in_*"],
    "key_cookies": ["currency"],
    "key_headers": ["X-Device"],
    "ignore_query": ["utm_*", "fbclid"],
    "negative_ttl": {404: 60, "5xx": 1},
}


def outcome(response: Response) -> str:
    """hit, stored, bypass or passed, out of Cache-Status; none without it."""
    status = (response.get(b"cache-status") or b"").decode()
    for word in ("hit", "stored", "bypass"):
        if word in status:
            return word
    return "passed" if status else "none"


def echo(connection: OriginConnection, request: Request) -> None:
    """Answer with all that a page might be made of."""
    list(connection.body_pieces(request))
    cookies = b"; ".join(request.values(b"cookie"))
    body = b"|".join([request.target, cookies, b",".join(request.values(b"x-device"))])
    connection.send(response_bytes(b"" if request.method == b"HEAD" else body))


class Everywhere(dict[bytes, Any]):
    """Routes: every path that has none of its own echoes."""

    def __contains__(self, path: object) -> bool:
        return True

    def __missing__(self, path: bytes) -> Any:
        return echo


@pytest.fixture(scope="module")
def app(module_origin: Callable[..., App]) -> App:
    app = module_origin()
    app.routes = Everywhere()
    return app


@pytest.fixture(scope="module")
def proxy(module_instances: Instances, app: App) -> Minato:
    return module_instances.start(app, cache={"enabled": True, "ttl": 0}, service_keys={"cache": RULES})


@pytest.fixture
def path(request: pytest.FixtureRequest) -> bytes:
    """A path of the test's own: nothing is stored under it yet."""
    return b"/" + request.node.name.encode().translate(None, b"[]?#%/ ")


def asked(app: App, path: bytes) -> list[bytes]:
    """The targets of that path that the upstream was asked for."""
    return [request.target for request in app.requests if request.target.partition(b"?")[0] == path]


# -- bypass


@pytest.mark.parametrize(
    "spelling",
    [
        b"/account/%b",
        b"//account/%b",
        b"/%%61ccount/%b",
        b"/./account/%b",
        b"/x/../account/%b",
        b"/account%%2F%b",
        b"/account%%2f%b",
        b"/account;a=1/%b",
        b"/account/../%b",
        b"/api//private/%b",
        b"/api%%2fprivate/%b",
    ],
)
def test_a_bypassed_path_is_asked_for_each_time_however_it_is_spelled(
    proxy: Minato, app: App, path: bytes, spelling: bytes
) -> None:
    target, before = spelling % path[1:], len(app.requests)
    assert [outcome(fetch(proxy.port, target + b"?utm_source=1")) for _ in range(3)] == ["bypass"] * 3
    forwarded = [request.target for request in app.requests[before:]]
    assert forwarded == [target + b"?utm_source=1"] * 3, "and as it came"


def test_a_path_beside_a_bypassed_one_is_stored(proxy: Minato) -> None:
    assert [outcome(fetch(proxy.port, b"/accounts")) for _ in range(2)] == ["stored", "hit"]


@pytest.mark.parametrize("cookie", [b"session=1", b"a=b; wordpress_logged_in_9=x", b"a=b;session"])
def test_a_request_with_a_bypassing_cookie_gets_its_own_page_and_leaves_none(
    proxy: Minato, path: bytes, cookie: bytes
) -> None:
    path += b"%d" % len(cookie)
    mine = [fetch(proxy.port, path, fields=[(b"Cookie", cookie)]) for _ in range(2)]
    assert [outcome(response) for response in mine] == ["bypass", "bypass"]
    guests = [fetch(proxy.port, path, fields=[(b"Cookie", b"other=1")]) for _ in range(2)]
    assert [outcome(response) for response in guests] == ["stored", "hit"]
    again = fetch(proxy.port, path, fields=[(b"Cookie", cookie)])
    assert (outcome(again), again.body) == ("bypass", path + b"|" + cookie + b"|")


def test_a_post_with_a_bypassing_cookie_invalidates_what_guests_see(proxy: Minato, path: bytes) -> None:
    eur = [(b"Cookie", b"currency=EUR")]
    assert [outcome(fetch(proxy.port, path, fields=eur)) for _ in range(2)] == ["stored", "hit"]
    fetch(proxy.port, path + b"?utm_source=x", method=b"POST", body=b"x", fields=[(b"Cookie", b"session=1")])
    assert outcome(fetch(proxy.port, path, fields=eur)) == "stored"


# -- keys


def test_two_currencies_never_see_each_others_page(proxy: Minato, app: App, path: bytes) -> None:
    cookies = [b"currency=EUR", b"currency=USD"]
    with Client(proxy.port) as one, Client(proxy.port) as other:
        for number in range(20):
            for client, cookie in zip((one, other), cookies, strict=True):
                response = client.request(target=path, fields=[(b"Cookie", b"s=%d; %b" % (number, cookie))])
                assert response.body == path + b"|s=0; " + cookie + b"|"
                assert outcome(response) == ("hit" if number else "stored")
    assert len(asked(app, path)) == 2


def test_two_currencies_in_one_pipeline_get_their_own(proxy: Minato, app: App, path: bytes) -> None:
    cookies = [b"currency=EUR", b"currency=USD", b"", b"currency=EUR"] * 10
    wires = [request_bytes(target=path, fields=[(b"Cookie", cookie)] if cookie else []) for cookie in cookies]
    with Client(proxy.port) as client:
        for _ in range(3):
            client.send(b"".join(wires))
            assert [client.receive().body for _ in wires] == [path + b"|" + cookie + b"|" for cookie in cookies]
    assert len(asked(app, path)) == 3


def test_two_devices_never_see_each_others_page(proxy: Minato, app: App, path: bytes) -> None:
    with Client(proxy.port) as client:
        for _ in range(5):
            for device in (b"phone", b"tv", b""):
                response = client.request(target=path, fields=[(b"X-Device", device)])
                assert response.body == path + b"||" + device
    assert len(asked(app, path)) == 3


# -- ignored parameters


def test_ignored_parameters_neither_make_a_page_of_their_own_nor_shape_one(
    proxy: Minato, app: App, path: bytes
) -> None:
    poison = fetch(proxy.port, path + b"?a=1&utm_source=%3Cscript%3E&b=2&fbclid=x")
    assert poison.body == path + b"?a=1&b=2||"
    for query in (b"?a=1&b=2", b"?utm_medium=y&a=1&b=2", b"?a=1&b=2&utm_x"):
        response = fetch(proxy.port, path + query)
        assert (outcome(response), response.body) == ("hit", poison.body)
    assert outcome(fetch(proxy.port, path + b"?b=2&a=1")) == "stored"
    assert outcome(fetch(proxy.port, path + b"?a=1&b=2&utm=1")) == "stored"
    head = fetch(proxy.port, path + b"?a=1&b=2&utm_source=q", method=b"HEAD")
    assert outcome(head) == "hit"


def test_what_is_not_stored_is_forwarded_with_all_its_parameters(proxy: Minato, app: App, path: bytes) -> None:
    target = path + b"?utm_source=1&a=1"
    fetch(proxy.port, target, method=b"POST", body=b"x")
    fetch(proxy.port, target, fields=[(b"Cookie", b"session=1")])
    fetch(proxy.port, target, fields=[(b"If-Match", b'"x"')])
    assert asked(app, path) == [target] * 3


def test_a_head_that_is_forwarded_asks_for_what_a_get_would(proxy: Minato, app: App, path: bytes) -> None:
    fetch(proxy.port, path + b"?utm_source=1&a=1", method=b"HEAD")
    assert asked(app, path) == [path + b"?a=1"]


def test_a_validation_asks_without_them_too(proxy: Minato, app: App, path: bytes) -> None:
    def script(connection: OriginConnection, request: Request) -> None:
        if request.get(b"if-none-match"):
            connection.send(b'HTTP/1.1 304 Same\r\nETag: "1"\r\n\r\n')
        else:
            connection.send(response_bytes(b"x", fields=[(b"ETag", b'"1"'), (b"Cache-Control", b"no-cache")]))

    app.routes[path] = script
    assert [fetch(proxy.port, path + b"?utm_source=%d" % number).body for number in range(3)] == [b"x"] * 3
    assert asked(app, path) == [path] * 3


# -- lifetimes


def answer(app: App, path: bytes, status: bytes, *fields: tuple[bytes, bytes]) -> None:
    app.routes[path] = response_bytes(b"error", status=status, fields=fields)


def test_errors_live_as_long_as_they_are_given(proxy: Minato, app: App, path: bytes) -> None:
    answer(app, path, b"503 Down")
    first = fetch(proxy.port, path)
    second = fetch(proxy.port, path)
    assert (first.status, outcome(first), second.status, outcome(second)) == (503, "stored", 503, "hit")
    answer(app, path, b"200 Up")
    time.sleep(1.1)  # its lifetime in the config
    assert fetch(proxy.port, path).status == 200


@pytest.mark.parametrize(
    ("status", "fields", "second"),
    [
        (b"404 Gone", [], "hit"),
        (b"410 Gone", [], "hit"),  # by default cacheable, with the service's ttl
        (b"500 Error", [(b"Cache-Control", b"no-store")], "passed"),
        (b"404 Gone", [(b"Set-Cookie", b"a=1")], "passed"),
        (b"404 Gone", [(b"Cache-Control", b"max-age=0")], "passed"),
        (b"403 No", [], "passed"),
        (b"429 Slow", [], "passed"),
    ],
)
def test_only_the_statuses_that_are_named_are_kept_and_only_as_far_as_the_upstream_lets(
    proxy: Minato, app: App, path: bytes, status: bytes, fields: list[tuple[bytes, bytes]], second: str
) -> None:
    answer(app, path, status, *fields)
    fetch(proxy.port, path)
    assert outcome(fetch(proxy.port, path)) == second


def test_what_minato_answers_itself_is_not_kept(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    app.routes[b"/x"] = lambda connection, request: connection.close()
    instance = minato(app, cache={"enabled": True}, service_keys={"cache": {"negative_ttl": {"5xx": 60}}, "retries": 0})
    assert fetch(instance.port, b"/x").status == 502
    app.routes[b"/x"] = response_bytes(b"up")
    assert fetch(instance.port, b"/x").status == 200


# -- on and off, per service; reload


def two_services(app: App, one: dict[str, Any], other: dict[str, Any]) -> list[dict[str, Any]]:
    port = free_port()
    return [
        service(port, [app], name="one", hosts=["http://one.test/"], cache=one),
        service(port, [app], name="other", hosts=["http://other.test/"], cache=other),
    ]


@pytest.mark.parametrize("top", [True, False])
def test_each_service_has_the_cache_on_or_off_for_itself(minato: StartMinato, origin: MakeApp, top: bool) -> None:
    app = origin()
    app.routes[b"/x"] = response_bytes(b"x", fields=FRESH)
    services = two_services(app, {"enabled": not top}, {})
    instance = minato(services=services, cache={"enabled": top})
    seen = {
        host: [outcome(fetch(instance.port, b"/x", host=host)) for _ in range(3)]
        for host in (b"one.test", b"other.test")
    }
    on, off = (b"other.test", b"one.test") if top else (b"one.test", b"other.test")
    assert seen == {on: ["stored", "hit", "hit"], off: ["none"] * 3}


def test_a_service_has_its_own_ttl_and_the_rest_that_of_the_top_level(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    app.routes[b"/x"] = response_bytes(b"x")
    instance = minato(services=two_services(app, {"ttl": 0}, {}), cache={"enabled": True, "ttl": 60})
    for host, expected in ((b"one.test", ["passed", "passed"]), (b"other.test", ["stored", "hit"])):
        assert [outcome(fetch(instance.port, b"/x", host=host)) for _ in range(2)] == expected


def test_changed_rules_hold_after_a_reload(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    app.routes = Everywhere()
    instance = minato(app, cache={"enabled": True, "ttl": 60})
    member = [(b"Cookie", b"session=1")]
    assert [outcome(fetch(instance.port, b"/x?utm_a=1", fields=member)) for _ in range(2)] == ["stored", "hit"]
    config = instance.config
    config["services"][0]["cache"] = {"bypass_cookies": ["session"], "ignore_query": ["utm_*"]}
    instance.write_config(make_config(config["services"], cache=config["cache"]))
    instance.reload(wait_old_gone=True)
    assert [outcome(fetch(instance.port, b"/x?utm_a=1", fields=member)) for _ in range(2)] == ["bypass", "bypass"]
    assert [outcome(fetch(instance.port, b"/x?utm_a=%d" % n)) for n in range(2)] == ["stored", "hit"]


def test_check_names_the_line_and_the_key_of_a_bad_rule(tmp_path: Path) -> None:
    rules = {"key_cookie": ["a"], "negative_ttl": {"6xx": 1}}
    config = make_config([service(8080, ["http://127.0.0.1:1"], cache=rules)])
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    result = run_minato("check", "--config", "c.yaml", cwd=tmp_path)
    said = result.stdout + result.stderr
    assert result.returncode == 2
    assert re.search(r'c\.yaml:\d+: services\[0\]\.cache\.key_cookie: unknown key; did you mean "key_cookies"', said)
    assert re.search(r"c\.yaml:\d+: services\[0\]\.cache\.negative_ttl\.6xx: expected the status of an error", said)
