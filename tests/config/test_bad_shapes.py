"""Wrong shapes and wrong keys: lists where mappings are due, what is missing, unknown or given twice."""

from __future__ import annotations

import pytest

from minato.config.problems import MAX_PROBLEMS

from .samples import Complaints, bad, service, with_services

SHAPES = [
    bad("a list at the top", "- services\n", "1: expected a mapping (key: value), got a list"),
    bad("no services", "workers: 2\nservices:\n", "2: services: is empty"),
    bad("an empty list of services", "services: []", "1: services: is empty"),
    bad("services as a mapping", "services: {web: 1}", "1: services: expected a list, got a mapping"),
    bad("services as text", 'services: "web"', '1: services: expected a list, got the text "web"'),
    bad("a service that is text", "services:\n- web", "2: services[0]: expected a mapping (key: value), got web"),
    bad(
        "a service that is nothing",
        "services:\n-\n",
        "2: services[0]: is empty; a service has name, listen_port, hosts and upstreams",
    ),
    bad("a section that is text", "cache: yes\n", "1: cache: expected a mapping (key: value), got yes"),
    bad("a list where a number is due", "workers: [1]\n", "1: workers: expected a single value, got a list"),
    bad("a mapping where text is due", service("name2: {}"), '7: services[0].name2: unknown key; did you mean "name"?'),
    bad("a list as a key", "[a]: 1\n", "1: a list cannot be a key; a key is a plain word"),
    bad(
        "hosts as text",
        service("retries: 1").replace('["http://example.com/"]', "http://e/"),
        "4: services[0].hosts: expected a list, got http://e/",
    ),
    bad("no hosts", service("retries: 1").replace('["http://example.com/"]', "[]"), "4: services[0].hosts: is empty"),
    bad(
        "an upstream that is text",
        "services:\n- {name: a, listen_port: 1, hosts: [http://e/], upstreams: [http://u]}",
        "2: services[0].upstreams[0]: expected a mapping (key: value), got http://u",
    ),
    bad(
        "an upstream without host",
        "services:\n- {name: a, listen_port: 1, hosts: [http://e/], upstreams: [{weight: 2}]}",
        "2: services[0].upstreams[0].host: is missing",
    ),
    bad(
        "a service without anything it needs",
        "services:\n- retries: 1\n",
        "2: services[0].name: is missing",
        "2: services[0].listen_port: is missing",
        "2: services[0].hosts: is missing",
        "2: services[0].upstreams: is missing",
    ),
]

KEYS = [
    bad("an unknown key near a known one", "worker: 2\n", '1: worker: unknown key; did you mean "workers"?'),
    bad("a key with a dash", "\naccess-log: {}\n", '2: access-log: unknown key; did you mean "access_log"?'),
    bad("a key in upper case", "cache:\n  TTL: 1\n", '2: cache.TTL: unknown key; did you mean "ttl"?'),
    bad("an unknown key near none", "admin:\n  xyzzy: 1\n", "2: admin.xyzzy: unknown key; known here: listen"),
    bad(
        "a key that is no word",
        '"a b\\n": 1\n',
        '1: "a b\\n": unknown key; known here: workers, express, trace, cache, health, passive_health, timeouts, '
        "limits, recycle, access_log, admin, forwarded, retry_budget, dns, trusted_proxies, services",
    ),
    bad("a key given twice", "workers: 1\nexpress: true\nworkers: 2\n", "3: workers: is given twice, first on line 1"),
    bad("a section given twice", "cache: {}\ncache: {}\n", "2: cache: is given twice, first on line 1"),
    bad(
        "both names of one key",
        "cache:\n  max_size: 1\n  max_body_size: 1\n",
        "3: cache.max_body_size: means the same as max_size on line 2; give one",
    ),
    bad(
        "a null key",
        "? \n: 1\n",
        '1: "": unknown key; known here: workers, express, trace, cache, health, passive_health, timeouts, '
        "limits, recycle, access_log, admin, forwarded, retry_budget, dns, trusted_proxies, services",
    ),
]


@pytest.mark.parametrize(("text", "lines"), SHAPES + KEYS)
def test_each_wrong_shape_or_key_is_reported_with_line_and_path(
    text: str, lines: list[str], complaints: Complaints
) -> None:
    assert complaints(text) == lines


def test_all_problems_come_at_once_in_the_order_of_lines(complaints: Complaints) -> None:
    text = (
        "services:\n"
        "  - name: web\n"
        "    listen_port: 99999\n"
        "    hosts: [example.com, 'http://ok/']\n"
        "    upstreams:\n"
        "      - host: localhost\n"
        "      - hots: http://u\n"
        "workers: none\n"
        "timeouts:\n"
        "  conect: 5\n"
        "  read: -1\n"
    )
    assert complaints(text) == [
        "3: services[0].listen_port: 99999 is out of range: at most 65,535",
        '4: services[0].hosts[0]: "example.com" has no scheme; write a URL such as "http://example.com"',
        '6: services[0].upstreams[0].host: "localhost" has no scheme; write a URL such as "http://localhost"',
        '7: services[0].upstreams[1].hots: unknown key; did you mean "host"?',
        "7: services[0].upstreams[1].host: is missing",
        "8: workers: expected a whole number, got none",
        '10: timeouts.conect: unknown key; did you mean "connect"?',
        "11: timeouts.read: -1 is out of range: at least 0.001 seconds",
    ]


def test_problems_beyond_a_thousand_are_counted(complaints: Complaints) -> None:
    lines = complaints("services:\n" + "- x\n" * (MAX_PROBLEMS + 5))
    assert len(lines) == MAX_PROBLEMS + 1
    assert lines[-1] == "and 5 more problems"


def test_a_problem_is_one_line_whatever_the_file_holds(complaints: Complaints) -> None:
    [line] = complaints(with_services('"\\n\\r\\x1b\\u2028\\u202e": 1\n'))
    assert line.startswith(r'1: "\n\r\x1b\u2028\u202e": unknown key')
