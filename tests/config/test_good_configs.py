"""Configs that are right: every default, every key, and what becomes of each way to write a value."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from minato.config import (
    AccessLogConfig,
    AdminConfig,
    BalancerKind,
    CacheConfig,
    CacheKind,
    ClientField,
    Config,
    DnsConfig,
    ForwardedConfig,
    HealthConfig,
    HostRule,
    Limits,
    ListenAddress,
    LogFormat,
    ProxyProtocol,
    QueueConfig,
    RecycleConfig,
    RetryBudgetConfig,
    Service,
    Timeouts,
    Upstream,
    load_config,
)

from .samples import GOOD_SERVICE, Load, host, service, upstream

SHIPPED = Path(__file__).parents[2] / "config.yaml"


def test_what_is_left_out_has_the_defaults_of_the_contract(load: Load) -> None:
    config = load(GOOD_SERVICE)
    assert config == Config(
        path=config.path,
        services=(
            Service(
                name="web",
                listen=ListenAddress("", 8080),
                balancer=BalancerKind.ROUND_ROBIN,
                hosts=(HostRule("example.com", "/"),),
                upstreams=(Upstream("http://localhost:8001", "http", "localhost", 8001, "", "", "/", 1, None, None),),
                retries=1,
                queue=QueueConfig(100, 5.0),
            ),
        ),
        workers=None,
        express=True,
        cache=CacheConfig(False, CacheKind.LRU, 100, 1048576, 268435456, 300.0),
        health=HealthConfig(10.0, 1.0, 5.0, 1, 1, ((200, 200),)),
        timeouts=Timeouts(5.0, 10.0, 60.0, 60.0, 10.0, 60.0, 75.0, 90.0, 30.0, 60.0, 10.0),
        limits=Limits(32768, 100, 8192, 0, 10000, 0, 0, 240, 240, 0, 33_554_432, 5.0),
        recycle=RecycleConfig(0, 0, 0.1),
        access_log=AccessLogConfig("off", LogFormat.COMBINED),
        trusted_proxies=(),
        forwarded=ForwardedConfig(ClientField.X_FORWARDED_FOR, False),
        retry_budget=RetryBudgetConfig(0.2, 10.0),
        dns=DnsConfig(30.0, 10.0, 16),
    )


@pytest.mark.usefixtures("parser")
def test_every_key_arrives_where_it_belongs(load: Load) -> None:
    config = load(
        """
workers: 3
express: false
cache: {enabled: true, type: LFU, capacity: 7, max_body_size: 8, max_memory: 9, ttl: 0}
health: {interval: 1, tcp_timeout: 2, http_timeout: 3.5, rise: 4, fall: 5, expect: "200,204,300-399"}
timeouts: {connect: 1, response: 2, read: 3, write: 4, client_header: 5, client_body: 6, client_idle: 7,
           upstream_idle: 8, drain: 9, upgrade: 9.5, orphaned: 9.75, heartbeat: 10.5}
limits: {header_bytes: 1_000, header_fields: 2, target_bytes: 3, body_bytes: 4, connections: 5, upstream_connections: 6,
         connections_per_client: 7, upload_rate: 8, download_rate: 9, connection_requests: 10,
         partial_heads_bytes: 1_100, accept_wait: 0.5}
recycle: {requests: 100_000, memory: 200_000, jitter: .25}
access_log: {path: /var/log/minato.log, format: json}
admin: {listen: "[::1]:9180"}
trusted_proxies: [10.0.0.0/8, 192.168.1.1, "::1"]
forwarded: {believe: Forwarded, send: true}
retry_budget: {share: 0.5, min_per_second: 0}
dns: {interval: 0, timeout: 1.5, max_addresses: 2}
services:
  - name: 123
    listen: "[::1]"
    listen_port: 80
    balancer: LeastConnections
    retries: 0
    proxy_protocol: true
    queue: {size: 0, timeout: 0.25}
    hosts: [http://e/]
    upstreams: [{host: "https://u/base/?k=v", health_uri: "up?x=1", weight: 5, proxy_protocol: v2, max_connections: 7}]
"""
    )
    assert config == Config(
        path=config.path,
        services=(
            Service(
                name="123",
                listen=ListenAddress("::1", 80),
                balancer=BalancerKind.LEAST_CONNECTIONS,
                hosts=(HostRule("e", "/"),),
                upstreams=(
                    Upstream(
                        "https://u/base/?k=v", "https", "u", 443, "/base", "k=v", "/up?x=1", 5, ProxyProtocol.V2, 7
                    ),
                ),
                retries=0,
                proxy_protocol=True,
                queue=QueueConfig(0, 0.25),
            ),
        ),
        workers=3,
        express=False,
        cache=CacheConfig(True, CacheKind.LFU, 7, 8, 9, 0.0),
        health=HealthConfig(1.0, 2.0, 3.5, 4, 5, ((200, 200), (204, 204), (300, 399))),
        timeouts=Timeouts(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 9.5, 9.75, 10.5),
        limits=Limits(1000, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1100, 0.5),
        recycle=RecycleConfig(100_000, 200_000, 0.25),
        access_log=AccessLogConfig("/var/log/minato.log", LogFormat.JSON),
        admin=AdminConfig(ListenAddress("::1", 9180)),
        trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("192.168.1.1/32"), ip_network("::1/128")),
        forwarded=ForwardedConfig(ClientField.FORWARDED, True),
        retry_budget=RetryBudgetConfig(0.5, 0.0),
        dns=DnsConfig(0.0, 1.5, 2),
    )


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://example.com/", HostRule("example.com", "/")),
        ("http://example.com", HostRule("example.com", "/")),
        ("HTTP://Example.COM./Api/", HostRule("example.com", "/Api")),
        ("http://example.com/a/b//", HostRule("example.com", "/a/b")),
        ("http://example.com:8080/x", HostRule("example.com", "/x")),
        ('"http://*.example.org/"', HostRule("*.example.org", "/")),
        ('"http://*/"', HostRule("*", "/")),
        ("http://127.0.0.1", HostRule("127.0.0.1", "/")),
        ('"http://[0:0::1]:8080"', HostRule("[::1]", "/")),
        ("http://my_app/", HostRule("my_app", "/")),
        ("http://bücher.example/ü%20x", HostRule("xn--bcher-kva.example", "/%C3%BC%20x")),
        ("http://*.Bücher.example/", HostRule("*.xn--bcher-kva.example", "/")),
    ],
)
def test_hosts_come_in_one_normal_form(url: str, rule: HostRule, load: Load) -> None:
    assert load(host(url)).services[0].hosts == (rule,)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://u", ("http", "u", 80, "", "", "u:80")),
        ("https://U/", ("https", "u", 443, "", "", "u:443")),
        ("http://u:9/a/b/", ("http", "u", 9, "/a/b", "", "u:9")),
        ("http://u?a=1&b", ("http", "u", 80, "", "a=1&b", "u:80")),
        ("http://u/é?ü=%41", ("http", "u", 80, "/%C3%A9", "%C3%BC=%41", "u:80")),
        ('"http://[::0001]:8001/"', ("http", "::1", 8001, "", "", "[::1]:8001")),
        ("http://app.svc.cluster.local.:1", ("http", "app.svc.cluster.local.", 1, "", "", "app.svc.cluster.local.:1")),
        ("http://straße.de", ("http", "strasse.de", 80, "", "", "strasse.de:80")),
    ],
)
def test_upstreams_come_in_their_parts(url: str, expected: tuple[object, ...], load: Load) -> None:
    [it] = load(upstream(url)).services[0].upstreams
    assert (it.scheme, it.host, it.port, it.path, it.query, it.authority) == expected
    assert it.url == url.strip('"')


@pytest.mark.parametrize(
    ("written", "target"),
    [("/health", "/health"), ("health?a=b", "/health?a=b"), ("/ä", "/%C3%A4"), ("123", "/123")],
)
def test_health_uri_is_an_origin_form_target(written: str, target: str, load: Load) -> None:
    [it] = load(upstream("http://u", f"health_uri: {written}")).services[0].upstreams
    assert it.health_uri == target


@pytest.mark.parametrize("word", ["off", '"off"', '"-"', "/var/log/x", "no.log"])
def test_the_access_log_takes_off_without_quotes(word: str, load: Load) -> None:
    assert load(f"access_log: {{path: {word}}}\n{GOOD_SERVICE}").access_log.path == word.strip('"')


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("off", None),
        ('"off"', None),
        ("127.0.0.1:9180", ListenAddress("127.0.0.1", 9180)),
        ('"[0:0::1]:80"', ListenAddress("::1", 80)),
        ("0.0.0.0:8081", ListenAddress("0.0.0.0", 8081)),
    ],
)
def test_admin_listens_on_an_address_or_not_at_all(written: str, address: ListenAddress | None, load: Load) -> None:
    assert load(f"admin: {{listen: {written}}}\n" + GOOD_SERVICE).admin.listen == address


def test_max_size_is_another_name_of_max_body_size(load: Load) -> None:
    assert load("cache: {max_size: 5}\n" + GOOD_SERVICE).cache.max_body_size_bytes == 5


def test_a_section_with_everything_commented_out_is_the_default(load: Load) -> None:
    assert load("health:\n    #interval: 5\ntrusted_proxies:\n" + GOOD_SERVICE) == load(GOOD_SERVICE)


def test_anchors_and_merge_keys_share_what_upstreams_have_in_common(load: Load) -> None:
    text = upstream(
        "http://a", "<<: &common {weight: 3, health_uri: /up}\n  - {host: http://b, <<: *common, weight: 4}"
    )
    first, second = load(text).services[0].upstreams
    assert (first.weight, first.health_uri) == (3, "/up")
    assert (second.weight, second.health_uri) == (4, "/up")


def test_of_several_merged_mappings_the_first_wins(load: Load) -> None:
    merged = "<<: [{weight: 3}, {weight: 4, health_uri: /up}]"
    [it] = load(upstream("http://a", merged)).services[0].upstreams
    assert (it.weight, it.health_uri) == (3, "/up")


def test_services_on_one_port_may_differ_by_path_or_address(load: Load) -> None:
    second = "- {name: b, listen_port: 8080, hosts: [http://example.com/api], upstreams: [{host: http://u}]}\n"
    third = (
        "- {name: c, listen_port: 8080, listen: 127.0.0.1, hosts: [http://example.com/], upstreams: [{host: http://u}]}"
    )
    config = load(
        "services:\n" + service("retries: 1").removeprefix("services:\n").replace("\n  ", "\n")[2:] + second + third
    )
    assert config.listen_addresses() == (ListenAddress("", 8080), ListenAddress("127.0.0.1", 8080))


def test_a_byte_order_mark_and_windows_line_ends_are_fine(load: Load) -> None:
    text = GOOD_SERVICE.lstrip().replace("\n", "\r\n").encode()
    assert load(b"\xef\xbb\xbf" + text) == load(GOOD_SERVICE)


def test_ten_thousand_services_load(load: Load) -> None:
    config = load(
        "services:\n"
        + "".join(
            f"- name: s{n}\n  listen_port: 8080\n  hosts: [http://h{n}.example.com/]\n"
            f"  upstreams:\n  - host: http://10.0.{n // 250}.{n % 250}:8001\n"
            for n in range(10_000)
        )
    )
    assert len(config.services) == 10_000
    assert config.services[-1].hosts == (HostRule("h9999.example.com", "/"),)


def test_the_shipped_config_answers_on_localhost_without_root() -> None:
    config = load_config(str(SHIPPED))
    [only] = config.services
    assert config.cache == replace(CacheConfig(), enabled=True)
    assert only.listen == ListenAddress("", 8080)
    assert [rule.host for rule in only.hosts] == ["localhost", "127.0.0.1", "[::1]"]
    assert [(it.authority, it.health_uri) for it in only.upstreams] == [
        ("127.0.0.1:9001", "/health"),
        ("127.0.0.1:9002", "/health"),
    ]


def test_what_the_shipped_config_has_commented_out_are_the_defaults(load: Load) -> None:
    text = SHIPPED.read_text()
    opened = re.sub(r"^( *)#(?=[a-z_]+:)", r"\1", text, flags=re.MULTILINE)
    assert opened.count("#") < text.count("#") - 35
    opened = opened.replace('listen: "127.0.0.1"', "")  # an example, as its default is no value
    config, shipped = load(opened), load(text)
    assert config == replace(shipped, workers=4)


def test_services_on_addresses_of_their_own_need_not_agree_about_the_proxy_protocol(load: Load) -> None:
    text = (
        "services:\n"
        "- {name: a, listen_port: 80, proxy_protocol: true, hosts: [http://e/], upstreams: [{host: http://u}]}\n"
        "- {name: b, listen_port: 80, proxy_protocol: yes, hosts: [http://f/], upstreams: [{host: http://u}]}\n"
        '- {name: c, listen_port: 80, listen: "::1", hosts: [http://e/], upstreams: [{host: http://u}]}\n'
    )
    config = load(text)
    assert [one.proxy_protocol for one in config.services] == [True, True, False]
    assert config.introduced_addresses() == {ListenAddress("", 80)}


def test_a_server_has_its_health_for_each_way_to_speak_to_it(load: Load) -> None:
    text = (
        "services:\n"
        "- {name: a, listen_port: 80, hosts: [http://e/], upstreams: [{host: http://u}]}\n"
        "- {name: b, listen_port: 80, hosts: [http://f/], upstreams: [{host: http://u, proxy_protocol: v1}]}\n"
        "- {name: c, listen_port: 80, hosts: [http://g/], upstreams: [{host: http://u, proxy_protocol: v2}]}\n"
        "- {name: d, listen_port: 80, hosts: [http://h/], upstreams: [{host: http://u, proxy_protocol: v2}]}\n"
    )
    assert list(load(text).upstream_index().values()) == [0, 1, 2]


@pytest.mark.parametrize(("given", "default", "cap"), [(None, 0, 0), (None, 5, 5), (0, 5, 0), (3, 5, 3), (3, 0, 3)])
def test_an_upstream_has_the_cap_it_says_and_else_that_of_limits(
    given: int | None, default: int, cap: int, load: Load
) -> None:
    own = "" if given is None else f"max_connections: {given}"
    config = load(f"limits: {{upstream_connections: {default}}}\n" + upstream("http://u:1", own))
    assert config.connection_cap(config.services[0].upstreams[0]) == cap


def test_upstream_at_an_address_has_a_key_and_a_name_of_its_own_and_is_the_same_otherwise() -> None:
    name = Upstream("http://app.test/", "http", "app.test", 80, weight=3, health_uri="/up")
    one = name.at("10.0.0.1")
    assert (one.key, one.url) == ("http://app.test:80/up [10.0.0.1]", "http://app.test/ [10.0.0.1]")
    assert one.key not in (name.key, name.at("10.0.0.2").key)
    assert (one.host, one.port, one.weight, one.authority) == ("app.test", 80, 3, "app.test:80")
