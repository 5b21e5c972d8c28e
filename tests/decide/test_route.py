"""Routing: hosts from the most to the least specific, prefixes in whole segments, and no spelling that dodges them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.config.model import BalancerKind, HostRule, ListenAddress, Service, Upstream
from minato.decide.route import RouteTable, normalize_host, split_path
from minato.errors import RequestError

UPSTREAM = Upstream("http://127.0.0.1:9001", "http", "127.0.0.1", 9001)


def table_of(*services: list[tuple[str, str]]) -> RouteTable:
    """Build a table of services given as lists of ``(host, path prefix)``; the index is the position."""
    return RouteTable.build(
        [
            (
                index,
                Service(
                    name=f"s{index}",
                    listen=ListenAddress("", 8080),
                    balancer=BalancerKind.ROUND_ROBIN,
                    hosts=tuple(HostRule(host, path) for host, path in rules),
                    upstreams=(UPSTREAM,),
                ),
            )
            for index, rules in enumerate(services)
        ]
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/", 0),
        (b"/other", 0),
        (b"/api", 1),
        (b"/api/", 1),
        (b"/api/x", 1),
        (b"/api?q=/api/v2", 1),
        (b"/apix", 0),
        (b"/ap", 0),
        (b"/api/v2", 2),
        (b"/api/v2/deep/er", 2),
        (b"/api/v22", 1),
        (b"/API", 0),
        (b"*", 0),
    ],
)
def test_longest_prefix_of_whole_segments_wins(path: bytes, expected: int) -> None:
    table = table_of([("example.com", "/")], [("example.com", "/api")], [("example.com", "/api/v2")])
    assert table.find(b"example.com", path) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"example.com", 0),
        (b"EXAMPLE.com", 0),
        (b"example.com:8080", 0),
        (b"example.com.", 0),
        (b"example.com.:8080", 0),
        (b"[::1]", 1),
        (b"[::1]:8080", 1),
        (b"[0:0:0:0:0:0:0:1]:8080", 1),
        (b"127.0.0.1:8080", 2),
        (b"www.example.com", None),
        (b"xample.com", None),
        (b"", None),
        (b"[::2]", None),
        (b"[nonsense]", None),
        (b"\xff\xfe", None),
    ],
)
def test_host_is_compared_without_case_port_and_trailing_dot(host: bytes, expected: int | None) -> None:
    table = table_of([("example.com", "/")], [("[::1]", "/")], [("127.0.0.1", "/")])
    assert table.find(host, b"/") == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"a.example.org", 0),
        (b"a.b.example.org", 0),
        (b"A.B.Example.ORG:81", 0),
        (b"x.deep.example.org", 1),
        (b"deep.example.org", 0),
        (b"exact.example.org", 2),
        (b"example.org", None),
        (b".example.org", None),
        (b"aexample.org", None),
        (b"a.example.org.evil.com", None),
    ],
)
def test_wildcard_takes_every_depth_below_it_but_not_itself(host: bytes, expected: int | None) -> None:
    table = table_of([("*.example.org", "/")], [("*.deep.example.org", "/")], [("exact.example.org", "/")])
    assert table.find(host, b"/") == expected


def test_host_without_a_prefix_for_the_path_leaves_it_to_wider_rules() -> None:
    table = table_of(
        [("a.example.org", "/api")], [("*.example.org", "/web")], [("*.org", "/files")], [("*", "/")], [("*", "/admin")]
    )
    found = {path: table.find(b"a.example.org", path) for path in (b"/api", b"/web", b"/files", b"/x", b"/admin/x")}
    assert found == {b"/api": 0, b"/web": 1, b"/files": 2, b"/x": 3, b"/admin/x": 4}


def test_exact_host_with_a_short_prefix_beats_a_wildcard_with_a_long_one() -> None:
    table = table_of([("a.example.org", "/")], [("*.example.org", "/api/v2")])
    assert table.find(b"a.example.org", b"/api/v2/x") == 0


def test_catch_all_takes_requests_without_a_host() -> None:
    assert table_of([("*", "/")]).find(b"", b"/") == 0


def test_empty_table_finds_nothing() -> None:
    assert table_of().find(b"example.com", b"/") is None


@pytest.mark.parametrize(
    "path",
    [
        b"/public/../admin",
        b"/public/x/../../admin/y",
        b"/%61dmin",
        b"/%61%64%6D%69%6e/x",
        b"/public/%2e%2E/admin",
        b"/public/.%2e/admin?x",
        b"/./admin",
        b"/%2e/admin",
        b"//admin",
        b"///admin//x",
        b"/public/.././admin/",
        b"/adm%69n;v=1/../admin",
    ],
)
def test_no_spelling_of_a_path_dodges_its_prefix(path: bytes) -> None:
    table = table_of([("*", "/")], [("*", "/admin")], [("*", "/public")])
    assert table.find(b"example.com", path) == 1


@pytest.mark.parametrize(
    "path", [b"/admin%2fx", b"/administrator", b"/admin%00", b"/admin%zz", b"/%2561dmin", b"/x/admin"]
)
def test_other_segments_are_not_taken_for_the_prefix(path: bytes) -> None:
    table = table_of([("*", "/")], [("*", "/admin")])
    assert table.find(b"example.com", path) == 0


def test_prefix_written_with_escapes_is_the_decoded_one() -> None:
    table = table_of([("*", "/a%20b/%7euser")])
    assert table.find(b"h", b"/a%20b/~user/x") == 0


@pytest.mark.parametrize(
    "path",
    [
        b"/..",
        b"/../x",
        b"/a/../../x",
        b"/%2e%2e/x",
        b"/a/./../../x",
        b"//..",
        b"/a//../b",
        b"/public/..%2fadmin",
        b"/public/..%5cadmin",
        b"/public/..\\admin",
        b"/public/x%2f..%2f..%2fadmin",
        b"/public/..;/admin",
        b"/public/%2e%2e;x=1/admin",
    ],
)
def test_path_that_climbs_out_or_is_read_in_two_ways_is_refused(path: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        table_of([("*", "/")]).find(b"example.com", path)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "path", [b"/a..b", b"/..a", b"/a..", b"/...", b"/a...b/..hidden", b"/x?../../..", b"/v1..v2%2fx"]
)
def test_dots_that_climb_nowhere_are_let_through(path: bytes) -> None:
    assert table_of([("*", "/")]).find(b"example.com", path) == 0


def test_rule_with_a_path_that_no_request_can_have_harms_no_other() -> None:
    table = table_of([("a", "/x/..;/y")], [("a", "/%2e%2e/z")], [("a", "/")])
    assert table.find(b"a", b"/x/y") == 2


def test_first_of_two_services_that_claim_the_same_has_it() -> None:
    assert table_of([("a", "/")], [("a", "/")]).find(b"a", b"/") == 0


SEGMENTS = st.lists(st.sampled_from(["a", "b", "api", "v1"]), max_size=4)


@given(rules=st.lists(SEGMENTS, min_size=1, max_size=8, unique_by=tuple), request=SEGMENTS)
def test_walk_finds_what_a_scan_of_all_rules_finds(rules: list[list[str]], request: list[str]) -> None:
    table = table_of(*([("h", "/" + "/".join(rule))] for rule in rules))
    matching = [index for index, rule in enumerate(rules) if request[: len(rule)] == rule]
    expected = max(matching, key=lambda index: len(rules[index]), default=None)
    assert table.find(b"h", ("/" + "/".join(request)).encode()) == expected


@given(st.binary(max_size=60))
def test_any_bytes_are_routed_or_refused(path: bytes) -> None:
    try:
        segments = split_path(b"/" + path)
    except RequestError as error:
        assert error.status == 400
    else:
        assert b".." not in segments


@given(st.text("abAB.:[]*1", max_size=12).map(str.encode))
def test_normalizing_a_host_keeps_it_lower_case_and_without_port(host: bytes) -> None:
    normal = normalize_host(host)
    assert normal == normal.lower()
    assert normal.startswith(b"[") or b":" not in normal


def test_lookup_does_not_scan_the_services() -> None:
    """Counts dict lookups instead of seconds: 10,000 services cost as many as one."""
    few = table_of([("h0.example.com", "/")])
    many = table_of(*([(f"h{index}.example.com", "/")] for index in range(10_000)))
    assert len(list(many._candidates(b"h0.example.com"))) == len(list(few._candidates(b"h0.example.com")))
    assert many.find(b"h9999.example.com", b"/x") == 9999
