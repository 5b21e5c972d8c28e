"""The sections hash and sticky of a service: what each key becomes, and what a user reads about each mistake."""

from __future__ import annotations

import pytest

from minato.config import BalancerKind, HashBy, HashConfig, SameSite, StickyConfig

from .samples import GOOD_SERVICE, Complaints, Load, bad, service

AT = "services[0]"
SECRET = "correct horse battery"


def hashed(text: str) -> str:
    """Return a config whose line 7 is the balancer and line 8 the hash of its one service."""
    return service(f"balancer: ConsistentHash\n    hash: {{{text}}}")


def sticky(text: str) -> str:
    """Return a config whose line 7 is the sticky of its one service."""
    return service(f"sticky: {{{text}}}")


def test_a_service_without_the_sections_ties_nothing_to_an_upstream(load: Load) -> None:
    (only,) = load(GOOD_SERVICE).services
    assert (only.balancer, only.sticky) == (BalancerKind.ROUND_ROBIN, None)


@pytest.mark.parametrize("name", ["RoundRobin", "LeastConnections", "PowerOfTwo", "ConsistentHash"])
def test_every_balancer_goes_with_sticky_sessions(load: Load, name: str) -> None:
    (only,) = load(service(f"balancer: {name}\n    sticky: {{cookie: srv}}")).services
    assert (only.balancer, only.sticky) == (BalancerKind(name), StickyConfig("srv"))


@pytest.mark.parametrize("text", ["", "\n    hash: {}", "\n    hash:", "\n    hash:\n      # by: path"])
def test_consistent_hash_hashes_the_url_unless_it_is_told_otherwise(load: Load, text: str) -> None:
    (only,) = load(service(f"balancer: ConsistentHash{text}")).services
    assert only.hash == HashConfig(HashBy.URL, "", 0.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("by: url, load_factor: 1.25", HashConfig(HashBy.URL, "", 1.25)),
        ("by: path, load_factor: 0", HashConfig(HashBy.PATH)),
        ("by: client, load_factor: 1", HashConfig(HashBy.CLIENT, "", 1.0)),
        ("by: header, name: X-User", HashConfig(HashBy.HEADER, "x-user")),
        ("by: cookie, name: Session_ID, load_factor: 2", HashConfig(HashBy.COOKIE, "Session_ID", 2.0)),
    ],
)
def test_every_key_of_hash_arrives_where_it_belongs(load: Load, text: str, expected: HashConfig) -> None:
    assert load(hashed(text)).services[0].hash == expected


@pytest.mark.usefixtures("parser")
def test_every_key_of_sticky_arrives_where_it_belongs(load: Load) -> None:
    text = f'cookie: srv, ttl: 3600, path: /shop, secure: yes, httponly: false, samesite: None, secret: "{SECRET}"'
    expected = StickyConfig("srv", 3600, "/shop", True, False, SameSite.NONE, SECRET)
    assert load(sticky(text)).services[0].sticky == expected


def test_no_representation_shows_the_secret(load: Load) -> None:
    assert SECRET not in repr(load(sticky(f'cookie: srv, secret: "{SECRET}"')))


BY = '"url", "path", "client", "header" or "cookie"'
HASHES = [
    bad(
        "hash without ConsistentHash",
        service("hash: {by: client}"),
        f'7: {AT}.hash: is of use with balancer: "ConsistentHash" alone',
    ),
    bad(
        "hash with another balancer",
        service("hash: {by: client}\n    balancer: PowerOfTwo"),
        f'7: {AT}.hash: is of use with balancer: "ConsistentHash" alone',
    ),
    bad(
        "hash with a misspelt balancer, which is the one mistake",
        service("hash: {by: client}\n    balancer: Consistenthash"),
        f'8: {AT}.balancer: expected "RoundRobin", "LeastConnections", "PowerOfTwo" or "ConsistentHash", '
        'got Consistenthash; did you mean "ConsistentHash"?',
    ),
    bad(
        "by something else",
        hashed("by: headers, name: X"),
        f'8: {AT}.hash.by: expected {BY}, got headers; did you mean "header"?',
    ),
    bad(
        "a header without name",
        hashed("by: header"),
        f'8: {AT}.hash.name: is missing: by: "header" hashes the one of that name',
    ),
    bad(
        "a cookie without name",
        hashed("by: cookie"),
        f'8: {AT}.hash.name: is missing: by: "cookie" hashes the one of that name',
    ),
    bad(
        "a name for a URL",
        hashed("name: x"),
        f'8: {AT}.hash.name: is of use with by: "header" or by: "cookie" alone',
    ),
    bad(
        "a name for clients",
        hashed("by: client, name: x"),
        f'8: {AT}.hash.name: is of use with by: "header" or by: "cookie" alone',
    ),
    bad(
        "a header that is none",
        hashed('by: header, name: "X User"'),
        f'8: {AT}.hash.name: "X User" is not the name of a header, such as "X-Device"',
    ),
    bad("an empty name", hashed('by: header, name: ""'), f"8: {AT}.hash.name: must not be empty"),
    bad(
        "all cookies",
        hashed("by: header, name: Cookie"),
        f'8: {AT}.hash.name: one cookie is meant by by: "cookie" and the name of that',
    ),
    bad(
        "what any client may claim",
        hashed("by: header, name: X-Forwarded-For"),
        f'8: {AT}.hash.name: "X-Forwarded-For" is not believed as clients send it; by: "client" knows whom to believe',
    ),
    bad(
        "a pattern of cookies",
        hashed('by: cookie, name: "a;b"'),
        f'8: {AT}.hash.name: "a;b" is not the name of a cookie, such as "session"',
    ),
    bad(
        "a bound below the average",
        hashed("load_factor: 0.5"),
        f"8: {AT}.hash.load_factor: 0.5 is out of range: less than the average for all cannot be; 0 is no bound",
    ),
    bad("a negative bound", hashed("load_factor: -1"), f"8: {AT}.hash.load_factor: -1 is out of range: at least 0"),
    bad("a huge bound", hashed("load_factor: 1e9"), f"8: {AT}.hash.load_factor: 1e9 is out of range: at most 1,000"),
    bad("a bound that is none", hashed("load_factor: off"), f"8: {AT}.hash.load_factor: expected a number, got off"),
    bad("an unknown key", hashed("key: url"), f"8: {AT}.hash.key: unknown key; known here: by, name, load_factor"),
    bad(
        "hash as a single word",
        service("balancer: ConsistentHash\n    hash: url"),
        f"8: {AT}.hash: expected a mapping (key: value), got url",
    ),
]
STICKIES = [
    bad("no cookie", sticky("ttl: 5"), f"7: {AT}.sticky.cookie: is missing"),
    bad("nothing at all", service("sticky:"), f"7: {AT}.sticky.cookie: is missing"),
    bad(
        "the name alone",
        service("sticky: srv"),
        f"7: {AT}.sticky: expected a mapping (key: value), got srv",
    ),
    bad(
        "a misspelt key",
        sticky("cookie: srv, http_only: true"),
        f'7: {AT}.sticky.http_only: unknown key; did you mean "httponly"?',
    ),
    bad(
        "a name that ends the cookie",
        sticky('cookie: "srv;Domain"'),
        f'7: {AT}.sticky.cookie: "srv;Domain" is not the name of a cookie, such as "session"',
    ),
    bad(
        "a path that goes on with attributes",
        sticky('cookie: srv, path: "/; Domain=evil.example"'),
        f'7: {AT}.sticky.path: "/; Domain=evil.example" is not the path of a cookie, such as "/" or "/shop"',
    ),
    bad(
        "a path without slash",
        sticky("cookie: srv, path: shop"),
        f'7: {AT}.sticky.path: "shop" is not the path of a cookie, such as "/" or "/shop"',
    ),
    bad(
        "half a second",
        sticky("cookie: srv, ttl: 0.5"),
        f"7: {AT}.sticky.ttl: expected a whole number, got 0.5 (write plain decimal digits)",
    ),
    bad(
        "more than browsers keep",
        sticky("cookie: srv, ttl: 34560001"),
        f"7: {AT}.sticky.ttl: 34560001 is out of range: at most 34,560,000",
    ),
    bad(
        "an unknown SameSite",
        sticky("cookie: srv, samesite: lax"),
        f'7: {AT}.sticky.samesite: expected "Lax", "Strict" or "None", got lax; did you mean "Lax"?',
    ),
    bad(
        "SameSite=None without Secure",
        sticky("cookie: srv, samesite: None"),
        f"7: {AT}.sticky.samesite: browsers take None only with secure: true",
    ),
    bad(
        "a __Secure- cookie without Secure",
        sticky("cookie: __Secure-srv"),
        f'7: {AT}.sticky.cookie: browsers take "__Secure-srv" only with secure: true',
    ),
    bad(
        "a __Host- cookie for a path",
        sticky("cookie: __Host-srv, secure: true, path: /shop"),
        f'7: {AT}.sticky.path: browsers take "__Host-srv" only with path: "/"',
    ),
    bad(
        "a short secret, which is not shown",
        sticky("cookie: srv, secret: hunter2"),
        f"7: {AT}.sticky.secret: is too short: a secret has at least 16 characters",
    ),
    bad(
        "an unprintable secret, which is not shown",
        sticky('cookie: srv, secret: "0123456789abcdef\\0"'),
        f"7: {AT}.sticky.secret: holds an unprintable character, or too many of them",
    ),
    bad(
        "the cookie that is hashed",
        service("balancer: ConsistentHash\n    hash: {by: cookie, name: srv}\n    sticky:\n      cookie: srv"),
        f'10: {AT}.sticky.cookie: "srv" is the cookie that hash looks at, so not minato\'s to set',
    ),
]


@pytest.mark.parametrize(("text", "lines"), HASHES + STICKIES)
def test_each_mistake_is_reported_with_line_and_path(text: str, lines: list[str], complaints: Complaints) -> None:
    assert complaints(text) == lines
