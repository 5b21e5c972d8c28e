"""Issue line 3, routing: by port, host and longest path prefix; absolute-form targets; the upstream's path in front."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Instances
from .harness import App, Client, Minato, exchange_raw, fetch, free_port, service

SERVICES = {
    "example": ["http://example.com/"],
    "api": ["http://example.com/api", "http://example.com/api/v1/special"],
    "v2": ["http://example.com/api/v2"],
    "wild": ["http://*.example.org/"],
    "exact": ["http://a.example.org/only"],
    "six": ["http://[::1]/"],
}


@pytest.fixture(scope="module")
def routed(module_instances: Instances, module_origin: Callable[..., App]) -> Iterator[Minato]:
    """One instance with every service of the table on one port, and one more service on a second port."""
    port, other = free_port(), free_port()
    services = [service(port, [module_origin(name=name)], name=name, hosts=hosts) for name, hosts in SERVICES.items()]
    services.append(service(other, [module_origin(name="other")], name="other", hosts=["http://example.com/"]))
    instance = module_instances.start(services=services)
    instance.config["other_port"] = other
    yield instance


def answering(port: int, host: bytes, target: bytes) -> str | int:
    """The name of the service that answered, or the status where none did."""
    response = fetch(port, target, host=host)
    return str(json.loads(response.body)["origin"]) if response.status == 200 else response.status


@pytest.mark.parametrize(
    ("host", "target", "expected"),
    [
        (b"example.com", b"/", "example"),
        (b"example.com", b"/other?x=/api", "example"),
        (b"EXAMPLE.com", b"/", "example"),
        (b"example.com:8080", b"/", "example"),
        (b"Example.Com:1", b"/api", "api"),
        (b"example.com", b"/api", "api"),
        (b"example.com", b"/api/", "api"),
        (b"example.com", b"/api/x", "api"),
        (b"example.com", b"/api?x=1", "api"),
        (b"example.com", b"/apix", "example"),
        (b"example.com", b"/api/v2", "v2"),
        (b"example.com", b"/api/v2/x", "v2"),
        (b"example.com", b"/api/v22", "api"),
        (b"example.com", b"/api/v1/special/x", "api"),
        (b"example.com", b"/API", "example"),
        (b"b.example.org", b"/", "wild"),
        (b"b.c.example.org", b"/", "wild"),
        (b"B.Example.ORG:99", b"/x", "wild"),
        (b"a.example.org", b"/only", "exact"),
        (b"[::1]", b"/", "six"),
        (b"[::1]:8080", b"/", "six"),
        (b"example.org", b"/", 404),
        (b"badexample.org", b"/", 404),
        (b"unknown.test", b"/", 404),
        (b"127.0.0.1", b"/", 404),
    ],
)
def test_host_and_longest_path_prefix_decide(routed: Minato, host: bytes, target: bytes, expected: str | int) -> None:
    assert answering(routed.port, host, target) == expected


def test_listen_port_decides_first(routed: Minato) -> None:
    assert answering(routed.config["other_port"], b"example.com", b"/api") == "other"
    assert answering(routed.config["other_port"], b"a.example.org", b"/only") == 404


def test_absolute_form_overrides_the_host_field(routed: Minato) -> None:
    with Client(routed.port) as client:
        response = client.request(target=b"http://example.com/api/x?y=1", host=b"b.example.org")
    echo = json.loads(response.body)
    assert (echo["origin"], echo["target"]) == ("api", "/api/x?y=1")
    assert ["host", "example.com"] in echo["fields"] and ["host", "b.example.org"] not in echo["fields"]


def test_absolute_form_of_an_unknown_host_is_not_found(routed: Minato) -> None:
    with Client(routed.port) as client:
        assert client.request(target=b"http://unknown.test/", host=b"example.com").status == 404


def test_absolute_form_without_a_path_asks_for_the_root(routed: Minato) -> None:
    with Client(routed.port) as client:
        assert json.loads(client.request(target=b"http://example.com", host=b"example.com").body)["target"] == "/"


def test_host_field_reaches_the_upstream_unchanged(routed: Minato) -> None:
    echo = json.loads(fetch(routed.port, host=b"Example.COM:8080").body)
    assert [value for name, value in echo["fields"] if name == "host"] == ["Example.COM:8080"]


def test_not_found_is_small_plain_text_and_keeps_the_connection(routed: Minato) -> None:
    with Client(routed.port) as client:
        response = client.request(host=b"unknown.test")
        assert response.status == 404 and len(response.body) < 300
        assert (response.get(b"content-type") or b"").startswith(b"text/plain")
        assert client.request(host=b"example.com").status == 200


@pytest.mark.parametrize("path", [b"/public/../api/x", b"/%61pi/x", b"/./api"])
def test_a_prefix_cannot_be_dodged_by_writing_the_path_differently(routed: Minato, path: bytes) -> None:
    assert answering(routed.port, b"example.com", path) == "api"


def test_path_that_climbs_above_the_root_is_malformed(routed: Minato) -> None:
    response, _ = exchange_raw(routed.port, b"GET /../x HTTP/1.1\r\nHost: example.com\r\n\r\n")
    assert response is not None and response.status == 400


@pytest.mark.parametrize(
    ("base", "target", "expected"),
    [
        ("", b"/x?y=1", "/x?y=1"),
        ("/", b"/x", "/x"),
        ("/base", b"/x", "/base/x"),
        ("/base/", b"/x", "/base/x"),
        ("/base", b"/", "/base/"),
        ("/base?k=v", b"/x", "/base/x?k=v"),
        ("/base?k=v", b"/x?y=1", "/base/x?k=v&y=1"),
        ("/?k=v", b"/x?y=1", "/x?k=v&y=1"),
        ("/base", b"/a%2Fb//c", "/base/a%2Fb//c"),
    ],
)
def test_upstream_path_and_query_come_first(
    base: str, target: bytes, expected: str, based: Callable[[str], Minato]
) -> None:
    assert json.loads(fetch(based(base).port, target).body)["target"] == expected


@pytest.fixture(scope="module")
def based(module_instances: Instances, module_origin: Callable[..., App]) -> Callable[[str], Minato]:
    """Instances by the path of their upstream, each started once."""
    app, running = module_origin(), dict[str, Any]()

    def start(base: str) -> Minato:
        if base not in running:
            running[base] = module_instances.start(
                {"host": app.url + base, "health_uri": "/health"},
            )
        return running[base]

    return start


def test_many_services_on_one_port_all_answer(minato: Callable[..., Minato], origin: Callable[..., App]) -> None:
    port, app = free_port(), origin()
    services = [service(port, [app], name=f"s{n}", hosts=[f"http://h{n}.test/p{n}"]) for n in range(1000)]
    instance = minato(services=services)
    for number in (0, 499, 999):
        assert answering(instance.port, b"h%d.test" % number, b"/p%d/x" % number) == "app"
        assert answering(instance.port, b"h%d.test" % number, b"/p%d" % (number + 1)) == 404
