"""What does not go together, though each value by itself is good: a user reads where it is and what is the matter."""

from __future__ import annotations

import pytest

from .samples import GOOD_SERVICE, Complaints, Load, bad, service

CAP = "is of use with max_connections of an upstream, or limits.upstream_connections, alone"
PARTS = "a head may have that many in parts"
NEVER = "all statuses of expect are among them: no upstream would ever get a request"
REMEDY = "give it another name or path, or both the same secret if they have the same upstreams"


def two_services(first: str, second: str) -> str:
    """Return a config with sticky on lines 5 and 11, of services on one port."""
    return "services:\n" + "".join(
        f"  - name: {name}\n    listen_port: 80\n    hosts: [{host}]\n    sticky: {{{sticky}}}\n    upstreams:\n"
        f"      - host: http://{name}\n"
        for name, host, sticky in (("a", "http://e/a", first), ("b", "http://e/b", second))
    )


TABLE = [
    bad("a queue without a cap", service("queue: {size: 5}"), f"7: services[0].queue: {CAP}"),
    bad(
        "a queue whose cap an upstream lifts",
        "limits: {upstream_connections: 5}\n"
        + service("queue: {size: 5}").replace('8001"', '8001"\n        max_connections: 0'),
        f"9: services[0].queue: {CAP}",
    ),
    bad("a drain that is all of expect", 'health: {drain: "200"}\n', f"1: health.drain: {NEVER}"),
    bad(
        "a drain that is all of expect in parts",
        'health:\n  expect: "200-299,304"\n  drain: "304,250-299,200-249"\n',
        f"3: health.drain: {NEVER}",
    ),
    bad(
        "all heads that are less than one",
        "limits: {partial_heads_bytes: 1000}\n",
        f"1: limits.partial_heads_bytes: partial_heads_bytes (1000) is less than header_bytes (32768): {PARTS}",
    ),
    bad(
        "one head that is more than all",
        "limits:\n  header_bytes: 16777216\n  partial_heads_bytes: 16777215\n",
        f"3: limits.partial_heads_bytes: partial_heads_bytes (16777215) is less than header_bytes (16777216): {PARTS}",
    ),
    bad(
        "a target larger than the head",
        "limits: {header_bytes: 1000, target_bytes: 1001}\n",
        "1: limits.target_bytes: a target is a part of the head, for which header_bytes allows 1000",
    ),
    bad(
        "a stored response larger than all of them",
        "cache: {max_body_size: 1001, max_memory: 1000}\n",
        "1: cache.max_body_size: a response of that size would not be stored: max_memory is 1000",
    ),
    bad(
        "the same by the other name",
        "cache: {max_memory: 0, max_size: 1}\n",
        "1: cache.max_size: a response of that size would not be stored: max_memory is 0",
    ),
    bad(
        "a session's cookie that never comes back",
        service("sticky: {cookie: srv, path: /shop}").replace("example.com/", "example.com/shopping"),
        '7: services[0].sticky.path: "/shop" has nothing in common with the hosts: '
        "browsers would never send the cookie",
    ),
    bad(
        "one cookie for sessions of two services",
        two_services("cookie: s", "cookie: s"),
        f'11: services[1].sticky.cookie: "s" is set on e by services[0].sticky (line 5), too; {REMEDY}',
    ),
]


@pytest.mark.parametrize(("text", "lines"), TABLE)
def test_what_does_not_go_together_is_named(complaints: Complaints, text: str, lines: list[str]) -> None:
    assert complaints(text) == lines


@pytest.mark.parametrize(
    "text",
    [
        service("queue: {size: 100, timeout: 5}"),  # the defaults, written down
        "limits: {upstream_connections: 1}\n" + service("queue: {size: 5}"),
        service("queue: {size: 5}").replace('8001"', '8001"\n        max_connections: 1'),
        'health: {expect: "200-299", drain: "204"}\n' + GOOD_SERVICE,
        "limits: {partial_heads_bytes: 0}\n" + GOOD_SERVICE,
        "limits: {partial_heads_bytes: 32768}\n" + GOOD_SERVICE,
        "limits: {header_bytes: 1000}\n" + GOOD_SERVICE,
        "cache: {max_memory: 1000}\n" + GOOD_SERVICE,
        service("sticky: {cookie: srv, path: /shop}").replace("example.com/", "example.com/shop/cart"),
        service("sticky: {cookie: srv, path: /shop/cart}").replace("example.com/", "example.com/shop"),
        two_services("cookie: s", "cookie: t"),
        two_services("cookie: s, path: /a", "cookie: s, path: /b"),
        two_services("cookie: s, secret: one and the same secret", "cookie: s, secret: one and the same secret"),
    ],
)
def test_what_goes_together_is_taken(load: Load, text: str) -> None:
    assert load(text).services


def test_what_is_bad_by_itself_is_not_complained_of_twice(complaints: Complaints) -> None:
    text = 'limits: {upstream_connections: many, partial_heads_bytes: 1}\nhealth: {expect: "x", drain: "200"}\n'
    assert len(complaints(text + service("queue: {size: 5}"))) == 2
