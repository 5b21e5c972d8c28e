"""The cache section of a service: what each key becomes, and what a user reads about each mistake."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minato.caching import key
from minato.config import CacheConfig, ServiceCacheConfig
from minato.config.values import NOT_NEGATIVE

from .samples import GOOD_SERVICE, Complaints, Load, bad, service

AT = "services[0].cache"


def cached(text: str) -> str:
    """Return a config whose line 7 is the cache section of its one service."""
    return service(f"cache: {{{text}}}")


def test_a_service_without_the_section_has_nothing_of_its_own(load: Load) -> None:
    config = load(GOOD_SERVICE)
    assert config.services[0].cache == ServiceCacheConfig(None, None, (), (), (), (), (), ())


@pytest.mark.parametrize("text", ["cache: {}", "cache:", "cache:\n      #ttl: 60"])
def test_an_empty_section_changes_nothing(load: Load, text: str) -> None:
    assert load(service(text)).services[0].cache == ServiceCacheConfig()


@pytest.mark.usefixtures("parser")
def test_every_key_arrives_where_it_belongs(load: Load) -> None:
    config = load(
        service(
            """cache:
      enabled: true
      ttl: 60
      bypass_paths: ["/account", /api/private/, "/a%20b/ü", "/"]
      bypass_cookies: [session, "wordpress_logged_in_*", "*"]
      key_cookies: ["currency", currency, "a[b]"]
      key_headers: [X-Device, accept-language]
      ignore_query: ["utm_*", fbclid]
      negative_ttl: {5xx: 1, 404: 10, "410": 0, 4xx: 2.5}"""
        )
    )
    assert config.services[0].cache == ServiceCacheConfig(
        enabled=True,
        ttl_s=60.0,
        bypass_paths=("/account", "/api/private", "/a%20b/%C3%BC", "/"),
        bypass_cookies=("session", "wordpress_logged_in_*", "*"),
        key_cookies=("currency", "a[b]"),
        key_headers=("x-device", "accept-language"),
        ignore_query=("utm_*", "fbclid"),
        negative_ttl_s=((404, 404, 10.0), (410, 410, 0.0), (400, 499, 2.5), (500, 599, 1.0)),
    )


@pytest.mark.parametrize(
    ("top", "own", "expected"),
    [
        (True, "", True),
        (False, "", False),
        (True, "enabled: false", False),
        (False, "enabled: true", True),
    ],
)
def test_what_a_service_says_of_enabled_goes_before_the_top_level(
    load: Load, top: bool, own: str, expected: bool
) -> None:
    config = replace(load(cached(own)), cache=CacheConfig(enabled=top))
    assert config.is_cached(config.services[0]) is expected


MISTAKES = [
    bad(
        "an unknown key",
        cached("key_cookie: [a]"),
        f'7: {AT}.key_cookie: unknown key; did you mean "key_cookies"?',
    ),
    bad(
        "a key of the cache that all share",
        cached("ttl: 5, capacity: 10"),
        f"7: {AT}.capacity: belongs to the cache section at the top: all services share one cache",
    ),
    bad("twice the same key", cached("ttl: 5, ttl: 6"), f"7: {AT}.ttl: is given twice, first on line 7"),
    bad("no mapping", service("cache: true"), f"7: {AT}: expected a mapping (key: value), got true"),
    bad("a negative ttl", cached("ttl: -1"), f"7: {AT}.ttl: -1 is out of range: at least 0 seconds"),
    bad("a word for enabled", cached("enabled: maybe"), f"7: {AT}.enabled: expected true or false, got maybe"),
    bad("no list", cached("key_cookies: currency"), f"7: {AT}.key_cookies: expected a list, got currency"),
    bad(
        "a list in a list",
        cached("ignore_query: [a, [b]]"),
        f"7: {AT}.ignore_query[1]: expected a single value, got a list",
    ),
    bad("an empty name", cached('ignore_query: [""]'), f"7: {AT}.ignore_query[0]: must not be empty"),
]

PATHS = [
    bad(
        "a path without a slash",
        cached("bypass_paths: [/a, account]"),
        f'7: {AT}.bypass_paths[1]: "account" does not begin with a slash; write "/account"',
    ),
    bad(
        "a URL for a path",
        cached('bypass_paths: ["http://example.com/a"]'),
        f'7: {AT}.bypass_paths[0]: is a path, such as "/account", not a URL: "http://example.com/a"',
    ),
    bad(
        "a path with an asterisk",
        cached('bypass_paths: ["/api/*"]'),
        f'7: {AT}.bypass_paths[0]: "/api/*": a path takes all that is below it, without a *; write "/api"',
    ),
    bad(
        "a path with a query",
        cached('bypass_paths: ["/a?b"]'),
        f"7: {AT}.bypass_paths[0]: a query cannot be matched; leave out what follows the path",
    ),
    bad(
        "a path with dot segments",
        cached('bypass_paths: ["/a/../b"]'),
        f'7: {AT}.bypass_paths[0]: the path holds "." or ".." segments; write it without them',
    ),
    bad(
        "a path with a stray percent sign",
        cached('bypass_paths: ["/100%"]'),
        f'7: {AT}.bypass_paths[0]: "/100%" holds a % that begins no escape; write %25',
    ),
]

NAMES = [
    bad(
        "an asterisk in the middle of a cookie's name",
        cached('bypass_cookies: ["a*b"]'),
        f'7: {AT}.bypass_cookies[0]: "a*b": a * stands only at the end, such as "session_*"',
    ),
    bad(
        "a cookie with its value",
        cached('key_cookies: ["a=b"]'),
        f'7: {AT}.key_cookies[0]: "a=b" is not the name of a cookie, such as "session" or "session_*"',
    ),
    bad(
        "a parameter with its value",
        cached('ignore_query: ["a=b"]'),
        f'7: {AT}.ignore_query[0]: "a=b" is not the name of a query parameter, such as "utm" or "utm_*"',
    ),
    bad(
        "a parameter beyond ASCII",
        cached('ignore_query: ["ü"]'),
        f'7: {AT}.ignore_query[0]: "ü" is not the name of a query parameter, such as "utm" or "utm_*"',
    ),
    bad(
        "a header with a colon",
        cached('key_headers: ["X-Device:"]'),
        f'7: {AT}.key_headers[0]: "X-Device:" is not the name of a header, such as "X-Device"',
    ),
    bad(
        "all cookies as a header",
        cached("key_headers: [Cookie]"),
        f'7: {AT}.key_headers[0]: every cookie is meant by key_cookies: ["*"]',
    ),
    bad(
        "a header that minato writes",
        cached("key_headers: [X-Forwarded-For]"),
        f'7: {AT}.key_headers[0]: "X-Forwarded-For" is not forwarded as clients send it, so it is no part of a key',
    ),
]

STATUSES = [
    bad(
        "a status that is no error",
        cached("negative_ttl: {200: 5}"),
        f'7: {AT}.negative_ttl.200: expected the status of an error, such as 404, or "4xx" or "5xx" for a class, '
        'got "200"',
    ),
    bad(
        "a class that is none",
        cached("negative_ttl: {50x: 5}"),
        f'7: {AT}.negative_ttl.50x: expected the status of an error, such as 404, or "4xx" or "5xx" for a class, '
        'got "50x"',
    ),
    bad(
        "a status of one request",
        cached("negative_ttl: {404: 1, 429: 5}"),
        f"7: {AT}.negative_ttl.429: 429 tells about one request, not about the resource; it is not stored for others",
    ),
    bad(
        "a status twice",
        cached('negative_ttl: {404: 1, "404": 5}'),
        f"7: {AT}.negative_ttl.404: is given twice, first on line 7",
    ),
    bad(
        "a status without a time",
        cached("negative_ttl: {404: }"),
        f"7: {AT}.negative_ttl.404: expected a number of seconds, got nothing",
    ),
    bad(
        "a list of statuses",
        cached("negative_ttl: [404, 410]"),
        f"7: {AT}.negative_ttl: expected a mapping (key: value), got a list",
    ),
    bad(
        "one time for no status",
        cached("negative_ttl: 10"),
        f"7: {AT}.negative_ttl: expected a mapping (key: value), got 10",
    ),
]


@pytest.mark.parametrize(("text", "lines"), MISTAKES + PATHS + NAMES + STATUSES)
def test_each_mistake_is_reported_with_its_line_and_key(complaints: Complaints, text: str, lines: list[str]) -> None:
    assert complaints(text) == lines


def test_lines_are_those_of_the_single_keys(complaints: Complaints) -> None:
    text = service(
        "cache:\n      key_cookies:\n        - ok\n        - a b\n      negative_ttl:\n        404: 1\n        2: 3"
    )
    assert [line.partition(": ")[0] + " " + line.split(": ")[1] for line in complaints(text)] == [
        f"10 {AT}.key_cookies[1]",
        f"13 {AT}.negative_ttl.2",
    ]


@pytest.mark.parametrize("name", sorted(key._WRITTEN_BY_PROXY))
def test_no_header_that_vary_cannot_name_is_taken_for_the_key(complaints: Complaints, name: bytes) -> None:
    assert f"{AT}.key_headers[0]" in complaints(cached(f"key_headers: [{name.decode()}]"))[0]


@pytest.mark.parametrize("status", sorted(NOT_NEGATIVE))
def test_no_status_of_one_request_is_taken(complaints: Complaints, status: int) -> None:
    assert f"{AT}.negative_ttl.{status}" in complaints(cached(f"negative_ttl: {{{status}: 1}}"))[0]
