"""The rules of a service: what they let pass the cache by, and what they make of keys."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minato.caching.rules import CacheRules
from minato.config.model import CacheConfig, ServiceCacheConfig
from minato.protocol.message import Fields
from tests.caching.helpers import fields_of


def rules_of(**settings: object) -> CacheRules:
    return CacheRules(CacheConfig(enabled=True), ServiceCacheConfig(**settings))  # type: ignore[arg-type]


def cookies(*lines: bytes) -> Fields:
    return [(b"cookie", line) for line in lines]


def test_rules_that_change_no_request_and_no_key_are_plain() -> None:
    assert rules_of().is_plain
    assert rules_of(ttl_s=1.0, negative_ttl_s=((404, 404, 1.0),)).is_plain
    assert not rules_of(enabled=False).is_plain
    for name in ("bypass_paths", "bypass_cookies", "key_cookies", "key_headers", "ignore_query"):
        assert not rules_of(**{name: ("/a",)}).is_plain


def test_only_rules_about_cookies_look_at_cookies() -> None:
    looking = {"bypass_cookies", "key_cookies"}
    for name in ("bypass_paths", "bypass_cookies", "key_cookies", "key_headers", "ignore_query"):
        assert rules_of(**{name: ("/a",)}).looks_at_cookies == (name in looking)
    assert rules_of(key_headers=("cookie",)).looks_at_cookies


# -- bypass


@pytest.mark.parametrize(
    "target",
    [
        b"/account",
        b"/account/",
        b"/account?x=1",
        b"/account/orders/7",
        b"//account",
        b"/./account",
        b"/x/../account",
        b"/x/%2e%2E/account",
        b"/%61ccount",
        b"/%61%63%63%6F%75%6e%74",
        b"/account%2Forders",
        b"/account%2forders",
        b"/account%5Corders",
        b"/account\\orders",
        b"/x%2f..%2faccount",  # refused by the routing anyway
        b"/%2faccount",
        b"/.%2faccount",
        b"/account;jsessionid=1",
        b"/account%3bx/y",
        b"/;x/account",
        b"/account/../x",  # of a server that leaves dot segments alone
        b"/account/%2e%2e/x",
        b"/api//private",
        b"/api/./private/x",
        b"/api%2Fprivate",
        b"/api;v=1/private",
        b"/../account",
    ],
)
def test_no_spelling_of_a_path_gets_round_its_bypass(target: bytes) -> None:
    assert rules_of(bypass_paths=("/account", "/api/private")).is_bypassed(target, [])


@pytest.mark.parametrize(
    "target",
    [b"/", b"/accounts", b"/Account", b"/api", b"/api/public", b"/x/account", b"/?/account", b"/x?a=/account", b"/a;b"],
)
def test_other_paths_are_not_bypassed(target: bytes) -> None:
    assert not rules_of(bypass_paths=("/account", "/api/private")).is_bypassed(target, [])


def test_a_bypass_of_the_root_takes_everything() -> None:
    assert all(rules_of(bypass_paths=("/",)).is_bypassed(target, []) for target in (b"/", b"/x", b"//", b"/%41?b"))


def test_a_path_written_with_escapes_is_the_decoded_one() -> None:
    rules = rules_of(bypass_paths=("/a%20b/c%2Fd",))
    assert all(rules.is_bypassed(target, []) for target in (b"/a%20b/c/d", b"/%61%20b/c%2fd/e"))
    assert not rules.is_bypassed(b"/a%20b/c", [])


SEGMENT = st.text("ab.%2fF5cC;\\e", max_size=6).map(str.encode)


@given(st.lists(SEGMENT, max_size=5), st.lists(SEGMENT, max_size=3))
def test_what_is_below_a_bypassed_path_is_bypassed_however_it_goes_on(before: list[bytes], after: list[bytes]) -> None:
    rules = rules_of(bypass_paths=("/x/y",))
    assert rules.is_bypassed(b"/".join([b"", b"x", b"y", *after]), [])
    rules.is_bypassed(b"/".join([b"", *before]), [])  # and nothing raises


@pytest.mark.parametrize(
    "lines",
    [
        [b"session=1"],
        [b"a=b; session=1"],
        [b"a=b;session=1;c=d"],
        [b"session"],
        [b"session="],
        [b"  session = 1"],
        [b"a=b", b"session=1"],
        [b"a=1, session=2"],
        [b'a="x; session=1"'],
        [b"wordpress_logged_in_0a1b=x"],
        [b"wordpress_logged_in_=x"],
    ],
)
def test_a_cookie_that_bypasses_is_found_wherever_a_server_might(lines: list[bytes]) -> None:
    rules = rules_of(bypass_cookies=("session", "wordpress_logged_in_*"))
    assert rules.is_bypassed(b"/", cookies(*lines))


@pytest.mark.parametrize(
    "lines", [[], [b""], [b"; ;"], [b"sessions=1"], [b"a=session"], [b"Session=1"], [b"wordpress_logged_in=1"]]
)
def test_other_cookies_do_not_bypass(lines: list[bytes]) -> None:
    rules = rules_of(bypass_cookies=("session", "wordpress_logged_in_*"))
    assert not rules.is_bypassed(b"/", cookies(*lines))
    assert not rules.is_bypassed(b"/", [(b"x-cookie", b"session=1")])


def test_an_asterisk_alone_stands_for_every_cookie() -> None:
    rules = rules_of(bypass_cookies=("*",))
    assert rules.is_bypassed(b"/", cookies(b"x=1"))
    assert not rules.is_bypassed(b"/", cookies(b" ; "))
    assert not rules.is_bypassed(b"/", [])


def test_a_service_without_the_cache_bypasses_it_with_everything() -> None:
    assert rules_of(enabled=False).is_bypassed(b"/", [])


# -- ignored query parameters


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/x", b"/x"),
        (b"/x?", b"/x?"),
        (b"/x?a=1", b"/x?a=1"),
        (b"/x?fbclid=1", b"/x"),
        (b"/x?fbclid", b"/x"),
        (b"/x?utm_source=a&utm_medium=b", b"/x"),
        (b"/x?b=2&utm_source=a&a=1", b"/x?b=2&a=1"),
        (b"/x?utm_source=a&&a=1", b"/x?&a=1"),
        (b"/x?utm=1&fbclids=2", b"/x?utm=1&fbclids=2"),
        (b"/x?UTM_source=1", b"/x?UTM_source=1"),
        (b"/x?%75tm_source=1", b"/x?%75tm_source=1"),  # spelled otherwise it is in the key, which is safe as well
        (b"/x?a=1&fbclid=2?b=3", b"/x?a=1"),
        (b"/utm_x/fbclid?a", b"/utm_x/fbclid?a"),
        (b"/x?a=1;fbclid=2", b"/x?a=1;fbclid=2"),
        (b"/x?fbclid=2;a=1", b"/x"),
    ],
)
def test_ignored_parameters_are_left_out_and_the_rest_stays_as_sent(target: bytes, expected: bytes) -> None:
    assert rules_of(ignore_query=("utm_*", "fbclid")).key_target(target) == expected


def test_an_asterisk_alone_leaves_no_query() -> None:
    assert rules_of(ignore_query=("*",)).key_target(b"/x?a=1&b&=") == b"/x"


def test_without_the_rule_every_query_stays() -> None:
    assert rules_of().key_target(b"/x?utm_source=1") == b"/x?utm_source=1"


NAME = st.sampled_from([b"a", b"b", b"utm", b"utm_a", b"utm_b", b"fbclid", b"fbclid2", b"%75tm_a", b""])
PARAMETER = st.tuples(NAME, st.sampled_from([b"", b"=", b"=1", b"=2", b"=a;b", b"=?"])).map(b"".join)
IGNORED = st.sampled_from([b"utm_", b"utm_x=1", b"utm_a", b"fbclid", b"fbclid=", b"fbclid=%26", b"utm_a=b=c"])
PATH = st.sampled_from([b"/", b"/x", b"/utm_a"])
RULES = rules_of(ignore_query=("utm_*", "fbclid"))


def target_of(path: bytes, parameters: list[bytes]) -> bytes:
    return path + b"?" + b"&".join(parameters) if parameters else path


@given(PATH, st.lists(PARAMETER, max_size=6))
def test_leaving_out_ignored_parameters_twice_changes_nothing(path: bytes, parameters: list[bytes]) -> None:
    once = RULES.key_target(target_of(path, parameters))
    assert RULES.key_target(once) == once


@given(PATH, st.lists(PARAMETER.filter(bool), max_size=5), IGNORED, st.integers(0, 5))
def test_an_ignored_parameter_never_changes_the_key(path: bytes, rest: list[bytes], ignored: bytes, at: int) -> None:
    with_it = [*rest[:at], ignored, *rest[at:]]
    assert RULES.key_target(target_of(path, with_it)) == RULES.key_target(target_of(path, rest))


@given(PATH, st.lists(PARAMETER, max_size=5), PARAMETER, st.integers(0, 5))
def test_any_other_parameter_always_changes_the_key(path: bytes, rest: list[bytes], other: bytes, at: int) -> None:
    name = other.partition(b"=")[0]
    assume(other and name != b"fbclid" and not name.startswith(b"utm_"))
    with_it = [*rest[:at], other, *rest[at:]]
    assert RULES.key_target(target_of(path, with_it)) != RULES.key_target(target_of(path, rest))


# -- extra parts of the key


def test_a_service_without_key_parts_has_no_extra() -> None:
    assert rules_of(bypass_cookies=("a",)).key_extra(cookies(b"a=1")) is None


def extra(*lines: str) -> bytes | None:
    return rules_of(key_cookies=("currency", "ab_*"), key_headers=("x-device", "accept-encoding")).key_extra(
        fields_of(*lines)
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["Cookie: currency=EUR"], ["Cookie: currency=USD"]),
        (["Cookie: currency=EUR"], []),
        (["Cookie: currency="], []),
        (["Cookie: currency"], ["Cookie: currency="]),
        (["Cookie: currency=EUR; currency=USD"], ["Cookie: currency=USD; currency=EUR"]),
        (["Cookie: currency=EUR; currency=USD"], ["Cookie: currency=EUR"]),
        (["Cookie: ab_1=x"], ["Cookie: ab_2=x"]),
        (["Cookie: a=1, currency=EUR"], ["Cookie: a=1, currency=USD"]),
        (["Cookie: a=1, currency=EUR"], ["Cookie: a=1"]),
        (["Cookie: currency=EUR,x"], ["Cookie: currency=EUR,y"]),
        (["X-Device: a"], ["X-Device: b"]),
        (["X-Device:"], []),
        (["X-Device: a"], ["Cookie: currency=a"]),
        (["X-Device: =a"], ["X-Device: a"]),
        (["X-Device: -"], []),
        (["X-Device: a", "X-Device: b"], ["X-Device: b", "X-Device: a"]),
        (["X-Device: a"], ["Accept-Encoding: a"]),
    ],
)
def test_what_differs_in_a_named_part_has_another_key(one: list[str], other: list[str]) -> None:
    assert extra(*one) != extra(*other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["Cookie: currency=EUR; s=1"], ["Cookie: s=2; currency=EUR"]),
        (["Cookie: currency=EUR; ab_1=x"], ["Cookie: ab_1=x;currency=EUR"]),
        (["Cookie: ab_1=x", "Cookie: currency=EUR"], ["Cookie: currency=EUR; ab_1=x"]),
        (["Cookie: s=1"], []),
        (["X-Device: a", "X-Device: b"], ["X-Device: a,b"]),
        (["Accept-Encoding: GZIP , br"], ["Accept-Encoding: gzip,br"]),
        (["User-Agent: x"], []),
    ],
)
def test_what_differs_in_nothing_named_has_the_same_key(one: list[str], other: list[str]) -> None:
    assert extra(*one) == extra(*other)


VALUE = st.text("ab=-;,", max_size=4)
SENT = st.fixed_dictionaries({}, optional={"Cookie": VALUE.map(lambda v: "c=" + v), "X-A": VALUE, "X-B": VALUE})


@given(SENT, SENT)
def test_keys_are_the_same_exactly_if_the_named_parts_are(one: dict[str, str], other: dict[str, str]) -> None:
    rules = rules_of(key_cookies=("*",), key_headers=("x-a", "x-b"))

    def parts(sent: dict[str, str]) -> object:
        pieces = sorted(
            (piece.strip() for piece in sent.get("Cookie", "").split(";")), key=lambda p: p.partition("=")[0]
        )
        return [piece for piece in pieces if piece], sent.get("X-A"), sent.get("X-B")

    keys = [rules.key_extra(fields_of(*(f"{name}: {value}" for name, value in sent.items()))) for sent in (one, other)]
    assert (keys[0] == keys[1]) == (parts(one) == parts(other))


# -- lifetimes


def test_a_single_status_goes_before_its_class_and_what_tells_of_one_request_is_left_out() -> None:
    rules = rules_of(negative_ttl_s=((404, 404, 10.0), (400, 499, 2.0), (500, 599, 1.0)))
    found = {status: rules.negative_ttl_s.get(status) for status in (200, 401, 403, 404, 429, 500, 503, 511)}
    assert found == {200: None, 401: None, 403: 2.0, 404: 10.0, 429: None, 500: 1.0, 503: 1.0, 511: None}
