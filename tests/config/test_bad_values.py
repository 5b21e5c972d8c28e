"""Wrong numbers, durations, words, addresses: what a user reads about each."""

from __future__ import annotations

import pytest

from .samples import Complaints, bad, service, upstream

RECYCLE = "1: recycle."
NUMBERS = [
    bad("text", "workers: many\n", "1: workers: expected a whole number, got many"),
    bad(
        "a quoted number",
        'workers: "4"\n',
        '1: workers: expected a whole number, got the text "4" (leave out the quotes)',
    ),
    bad("a boolean", "workers: true\n", "1: workers: expected a whole number, got true"),
    bad("nothing", "workers:\n", "1: workers: expected a whole number, got nothing"),
    bad("zero workers", "workers: 0\n", "1: workers: 0 is out of range: at least 1"),
    bad("a negative number", "workers: -4\n", "1: workers: -4 is out of range: at least 1"),
    bad("too many workers", "workers: 513\n", "1: workers: 513 is out of range: at most 512"),
    bad("a float", "workers: 1.5\n", "1: workers: expected a whole number, got 1.5 (write plain decimal digits)"),
    bad("hexadecimal", "workers: 0x1F\n", "1: workers: expected a whole number, got 0x1F (write plain decimal digits)"),
    bad("octal", "workers: 010\n", "1: workers: expected a whole number, got 010 (write plain decimal digits)"),
    bad("sexagesimal", "workers: 1:30\n", "1: workers: expected a whole number, got 1:30 (write plain decimal digits)"),
    bad("infinity", "timeouts: {read: .inf}\n", "1: timeouts.read: expected a number of seconds, got .inf"),
    bad("not a number", "timeouts: {read: .nan}\n", "1: timeouts.read: expected a number of seconds, got .nan"),
    bad("digits of another script", "workers: ٤\n", "1: workers: expected a whole number, got ٤"),
    bad(
        "an absurd number", f"workers: {'9' * 5000}\n", "1: workers: is far too long for a number here (from 1 to 512)"
    ),
    bad("a long number", f"workers: {'9' * 25}\n", f"1: workers: {'9' * 25} is out of range: at most 512"),
    bad(
        "a float that overflows",
        "timeouts: {read: 1e999}\n",
        "1: timeouts.read: 1e999 is out of range: at most 31,536,000 seconds",
    ),
    bad(
        "a unit",
        "timeouts:\n  read: 5s\n",
        "2: timeouts.read: expected a number of seconds, got 5s (write plain decimal digits)",
    ),
    bad("no time at all", "timeouts:\n  read: 0\n", "2: timeouts.read: 0 is out of range: at least 0.001 seconds"),
    bad("a negative time", "cache:\n  ttl: -1\n", "2: cache.ttl: -1 is out of range: at least 0 seconds"),
    bad(
        "a heartbeat no worker can keep",
        "timeouts: {heartbeat: 0.5}\n",
        "1: timeouts.heartbeat: 0.5 is out of range: at least 1 seconds",
    ),
    bad(
        "a share that is a word", "retry_budget: {share: some}\n", "1: retry_budget.share: expected a number, got some"
    ),
    bad("a negative share", "retry_budget: {share: -0.1}\n", "1: retry_budget.share: -0.1 is out of range: at least 0"),
    bad(
        "a share in per cent",
        "retry_budget: {share: 20%}\n",
        "1: retry_budget.share: expected a number, got 20% (write plain decimal digits)",
    ),
    bad(
        "more retries than there can be",
        "retry_budget: {min_per_second: 1e9}\n",
        "1: retry_budget.min_per_second: 1e9 is out of range: at most 1,000,000",
    ),
    bad(
        "a queue as a number",
        service("queue: 5"),
        "7: services[0].queue: expected a mapping (key: value), got 5",
    ),
    bad("a negative queue", service("queue: {size: -1}"), "7: services[0].queue.size: -1 is out of range: at least 0"),
    bad(
        "no time to wait",
        service("queue: {timeout: 0}"),
        "7: services[0].queue.timeout: 0 is out of range: at least 0.01 seconds",
    ),
    bad(
        "an unknown key of the queue",
        service("queue: {length: 5}"),
        "7: services[0].queue.length: unknown key; known here: size, timeout",
    ),
    bad(
        "a cap below none",
        upstream("http://u:1", "max_connections: -1"),
        "7: services[0].upstreams[0].max_connections: -1 is out of range: at least 0",
    ),
    bad("no connections", "limits: {connections: 0}\n", "1: limits.connections: 0 is out of range: at least 1"),
    bad("no capacity", "cache: {capacity: 0}\n", "1: cache.capacity: 0 is out of range: at least 1"),
    bad(
        "part of a request",
        "recycle: {requests: 0.5}\n",
        RECYCLE + "requests: expected a whole number, got 0.5 (write plain decimal digits)",
    ),
    bad("negative memory", "recycle: {memory: -1}\n", RECYCLE + "memory: -1 is out of range: at least 0"),
    bad("more jitter than all", "recycle: {jitter: 1.5}\n", RECYCLE + "jitter: 1.5 is out of range: at most 1"),
    bad(
        "jitter that is no number",
        "recycle: {jitter: some}\n",
        RECYCLE + "jitter: expected a number, got some",
    ),
    bad(
        "jitter in percent",
        "recycle: {jitter: 10%}\n",
        RECYCLE + "jitter: expected a number, got 10% (write plain decimal digits)",
    ),
    bad(
        "port 0",
        service("retries: 1").replace("8080", "0"),
        "3: services[0].listen_port: 0 is out of range: at least 1",
    ),
    bad(
        "port 65536",
        service("retries: 1").replace("8080", "65536"),
        "3: services[0].listen_port: 65536 is out of range: at most 65,535",
    ),
    bad("too many retries", service("retries: 101"), "7: services[0].retries: 101 is out of range: at most 100"),
    bad(
        "no weight",
        upstream("http://u", "weight: 0"),
        "7: services[0].upstreams[0].weight: 0 is out of range: at least 1",
    ),
]

VALUES = [
    bad("a number for a boolean", "express: 1\n", "1: express: expected true or false, got 1"),
    bad("a quoted boolean", 'express: "true"\n', '1: express: expected true or false, got the text "true"'),
    bad("nothing for a boolean", "cache: {enabled: }\n", "1: cache.enabled: expected true or false, got nothing"),
    bad(
        "an enum in lower case",
        "cache: {type: lru}\n",
        '1: cache.type: expected "LRU" or "LFU", got lru; did you mean "LRU"?',
    ),
    bad(
        "an enum of no kind",
        "access_log: {format: xml}\n",
        '1: access_log.format: expected "combined" or "json", got xml',
    ),
    bad(
        "a balancer that is misspelt",
        service("balancer: round_robin"),
        '7: services[0].balancer: expected "RoundRobin", "LeastConnections", "PowerOfTwo" or "ConsistentHash", '
        'got round_robin; did you mean "RoundRobin"?',
    ),
    bad(
        "a status that is none",
        "health: {expect: 600}\n",
        '1: health.expect: expected statuses such as "200", "200-399" or "200,204,300-399", got 600',
    ),
    bad("a range backwards", "health: {expect: 399-200}\n", "1: health.expect: the range 399-200 runs backwards"),
    bad("a list of statuses", "health: {expect: [200]}\n", "1: health.expect: expected a single value, got a list"),
    *(
        bad(
            f"{text} for admin",
            f'admin:\n  listen: "{text}"\n',
            '2: admin.listen: expected "off" or an IP address with a port, such as "127.0.0.1:9180" or "[::1]:9180", '
            f'got "{text}"',
        )
        for text in ("on", "9180", ":9180", "localhost:9180", "127.0.0.1", "::1:9180", "[127.0.0.1]:9180", "[::1]")
    ),
    bad(
        "an admin port that is none",
        'admin: {listen: "127.0.0.1:0"}\n',
        '1: admin.listen: the port "0" is not a number from 1 to 65535',
    ),
    *(
        bad(
            f"{address} for admin and a service",
            f'admin:\n  listen: "{address}"\n',
            f'2: admin.listen: {address} is taken by service "web" (*:8080)',
        )
        for address in ("127.0.0.1:8080", "[::1]:8080", "0.0.0.0:8080")
    ),
    bad(
        "a boolean for a log",
        "access_log: {path: false}\n",
        '1: access_log.path: expected "off", "-" or the path of a file, got false',
    ),
    bad(
        "a log with a NUL",
        'access_log: {path: "/x\\0y"}\n',
        '1: access_log.path: "/x\\x00y" holds a control or otherwise unprintable character',
    ),
    bad("a long path", f"access_log: {{path: {'x' * 5000}}}\n", "1: access_log.path: is longer than 4,096 characters"),
    bad("an empty path", 'access_log: {path: ""}\n', "1: access_log.path: must not be empty"),
    bad(
        "a proxy that is a name",
        "trusted_proxies:\n- ::1\n- lan\n",
        '3: trusted_proxies[1]: "lan" is not an address or CIDR such as "10.0.0.0/8"',
    ),
    bad(
        "a proxy with host bits",
        "trusted_proxies: [10.1.2.3/8]\n",
        '1: trusted_proxies[0]: "10.1.2.3/8" has bits set beyond its prefix; did you mean "10.0.0.0/8"?',
    ),
    bad("one proxy without a list", "trusted_proxies: 10.0.0.1\n", "1: trusted_proxies: expected a list, got 10.0.0.1"),
    bad(
        "a field that nobody believes",
        "forwarded:\n  believe: X-Real-IP\n",
        '2: forwarded.believe: expected "X-Forwarded-For" or "Forwarded", got X-Real-IP',
    ),
    bad("a negative gap", "dns: {interval: -1}\n", "1: dns.interval: -1 is out of range: at least 0 seconds"),
    bad("no address at all", "dns:\n  max_addresses: 0\n", "2: dns.max_addresses: 0 is out of range: at least 1"),
    bad(
        "a longer wait for names than a reload has",
        "dns: {timeout: 30}\n",
        "1: dns.timeout: 30 is out of range: at most 20 seconds",
    ),
    bad(
        "a version of the PROXY protocol that is none",
        upstream("http://u", "proxy_protocol: 2"),
        '7: services[0].upstreams[0].proxy_protocol: expected "v1" or "v2", got 2; did you mean "v2"?',
    ),
    bad(
        "a negative cap for one client",
        "limits: {connections_per_client: -1}\n",
        "1: limits.connections_per_client: -1 is out of range: at least 0",
    ),
    bad(
        "a name to listen on",
        service("listen: localhost"),
        '7: services[0].listen: "localhost" is not an IP address; write one such as "127.0.0.1" '
        "(the port goes to listen_port)",
    ),
    bad(
        "a port in listen",
        service("listen: 127.0.0.1:80"),
        '7: services[0].listen: "127.0.0.1:80" is not an IP address; write one such as "127.0.0.1" '
        "(the port goes to listen_port)",
    ),
    bad(
        "a blank name",
        service("retries: 1").replace("name: web", 'name: "  "'),
        "2: services[0].name: must not be empty",
    ),
]


@pytest.mark.parametrize(("text", "lines"), NUMBERS + VALUES)
def test_each_wrong_value_is_reported_with_line_and_path(text: str, lines: list[str], complaints: Complaints) -> None:
    assert complaints(text) == lines
