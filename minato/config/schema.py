"""The keys of the config file, one table a section, and the walk that reads a mapping by its table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from minato.config import nodes
from minato.config.model import (
    AccessLogConfig,
    AdminConfig,
    BalancerKind,
    CacheConfig,
    CacheKind,
    ClientField,
    DnsConfig,
    ForwardedConfig,
    HealthConfig,
    Limits,
    LogFormat,
    PassiveHealthConfig,
    ProxyProtocol,
    QueueConfig,
    RecycleConfig,
    RetryBudgetConfig,
    Timeouts,
)
from minato.config.nodes import Entry, Node, Scalar, describe
from minato.config.problems import BadValue, Problems, did_you_mean, shown
from minato.config.urls import (
    MAX_PORT,
    parse_admin_listen,
    parse_health_uri,
    parse_listen,
    parse_path_prefix,
    parse_upstream,
)
from minato.config.values import (
    boolean,
    cookie_names,
    failure_statuses,
    key_header,
    log_path,
    member_of,
    number,
    parameter_names,
    seconds,
    service_name,
    share,
    status_ranges,
    statuses_or_off,
    whole_number,
)

T = TypeVar("T")

_KIB = 1_024
_GIB = 1_073_741_824
_MAX_BODY_BYTES = 1_048_576 * _GIB
MAX_ADDRESSES = 256
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Key:
    """How one key is read: the attribute its value becomes, and the parser."""

    attribute: str
    parse: Callable[[Scalar], object]


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping of scalars that becomes one dataclass; what is left out keeps the dataclass's default."""

    build: Callable[..., Any]
    keys: Mapping[str, Key]


_CACHE_ENABLED = Key("enabled", boolean)
# RFC 9111, 1.2.2: 2^31 seconds stand for "as good as ever"
lifetime_s = seconds(low=0, high=2_147_483_648)
_CACHE_TTL = Key("ttl_s", lifetime_s)
_CACHE = Section(
    CacheConfig,
    {
        "enabled": _CACHE_ENABLED,
        "type": Key("kind", member_of(CacheKind)),
        "capacity": Key("capacity", whole_number(1, 100_000_000)),
        "max_body_size": Key("max_body_size_bytes", whole_number(0, _MAX_BODY_BYTES)),
        "max_size": Key("max_body_size_bytes", whole_number(0, _MAX_BODY_BYTES)),  # the name in the original's code
        "max_memory": Key("max_memory_bytes", whole_number(0, _MAX_BODY_BYTES)),
        "ttl": _CACHE_TTL,
        "show_key": Key("show_key", boolean),
    },
)
_HEALTH = Section(
    HealthConfig,
    {
        "interval": Key("interval_s", seconds(low=0.01)),
        "tcp_timeout": Key("tcp_timeout_s", seconds()),
        "http_timeout": Key("http_timeout_s", seconds()),
        "rise": Key("rise", whole_number(1, 1_000)),
        "fall": Key("fall", whole_number(1, 1_000)),
        "expect": Key("expect", status_ranges),
        "drain": Key("drain", statuses_or_off),
        "slow_start": Key("slow_start_s", seconds(low=0, high=86_400)),
    },
)
_PASSIVE_HEALTH = Section(
    PassiveHealthConfig,
    {
        "consecutive": Key("consecutive", whole_number(0, 1_000_000)),
        "error_rate": Key("error_rate", share),
        "window": Key("window_s", seconds(low=0.1, high=86_400)),
        "min_requests": Key("min_requests", whole_number(1, 1_000_000_000)),
        "eject": Key("eject_s", seconds(low=0.01)),
        "max_eject": Key("max_eject_s", seconds(low=0.01)),
        "max_ejected": Key("max_ejected", share),
        "statuses": Key("statuses", failure_statuses),
    },
)
_TIMEOUTS = Section(
    Timeouts,
    {
        "connect": Key("connect_s", seconds()),
        "response": Key("response_s", seconds()),
        "read": Key("read_s", seconds()),
        "write": Key("write_s", seconds()),
        "client_header": Key("client_header_s", seconds()),
        "client_body": Key("client_body_s", seconds()),
        "client_idle": Key("client_idle_s", seconds()),
        "upstream_idle": Key("upstream_idle_s", seconds()),
        "drain": Key("drain_s", seconds()),
        "upgrade": Key("upgrade_s", seconds()),
        "orphaned": Key("orphaned_s", seconds(low=0)),
        # Workers beat several times a second at best: less than a second would kill healthy ones.
        "heartbeat": Key("heartbeat_s", seconds(low=1)),
    },
)
_LIMITS = Section(
    Limits,
    {
        "header_bytes": Key("header_bytes", whole_number(64, 16_384 * _KIB)),
        "header_fields": Key("header_fields", whole_number(1, 100_000)),
        "target_bytes": Key("target_bytes", whole_number(1, 16_384 * _KIB)),
        "body_bytes": Key("body_bytes", whole_number(0, _MAX_BODY_BYTES)),
        "upload_rate": Key("upload_bytes_per_s", whole_number(0, _GIB)),
        "download_rate": Key("download_bytes_per_s", whole_number(0, _GIB)),
        "connection_requests": Key("connection_requests", whole_number(0, 1_000_000_000)),
        "partial_heads_bytes": Key("partial_heads_bytes", whole_number(0, _MAX_BODY_BYTES)),
        "accept_wait": Key("accept_wait_s", seconds(low=0)),
        "connections": Key("connections", whole_number(1, 10_000_000)),
        "upstream_connections": Key("upstream_connections", whole_number(0, 10_000_000)),
        "connections_per_client": Key("connections_per_client", whole_number(0, 10_000_000)),
    },
)
_RETRY_BUDGET = Section(
    RetryBudgetConfig,
    # A request is retried a hundred times at the most: from there on nothing is held back.
    {"share": Key("share", number(0, 100)), "min_per_second": Key("min_per_s", number(0, 1_000_000))},
)
_RECYCLE = Section(
    RecycleConfig,
    {
        "requests": Key("requests", whole_number(0, 1_000_000_000_000)),
        "memory": Key("memory_bytes", whole_number(0, _MAX_BODY_BYTES)),
        "jitter": Key("jitter", number(0, 1)),
    },
)
_ACCESS_LOG = Section(AccessLogConfig, {"path": Key("path", log_path), "format": Key("format", member_of(LogFormat))})
_FORWARDED = Section(ForwardedConfig, {"believe": Key("believe", member_of(ClientField)), "send": Key("send", boolean)})
_DNS = Section(
    DnsConfig,
    {
        "interval": Key("interval_s", seconds(low=0)),
        # Well below what a reload may take in all.
        "timeout": Key("timeout_s", seconds(low=0.01, high=20)),
        "max_addresses": Key("max_addresses", whole_number(1, MAX_ADDRESSES)),
    },
)
_ADMIN = Section(AdminConfig, {"listen": Key("listen", parse_admin_listen)})

SECTIONS: Mapping[str, Section] = {
    "cache": _CACHE,
    "health": _HEALTH,
    "passive_health": _PASSIVE_HEALTH,
    "timeouts": _TIMEOUTS,
    "limits": _LIMITS,
    "recycle": _RECYCLE,
    "access_log": _ACCESS_LOG,
    "admin": _ADMIN,
    "forwarded": _FORWARDED,
    "retry_budget": _RETRY_BUDGET,
    "dns": _DNS,
}
TOP_SCALARS: Mapping[str, Key] = {
    "workers": Key("workers", whole_number(1, 512)),
    "express": Key("express", boolean),
    "trace": Key("trace", boolean),
}
TOP_LISTS = ("trusted_proxies", "services")
SERVICE_SCALARS: Mapping[str, Key] = {
    "name": Key("name", service_name),
    "listen_port": Key("listen_port", whole_number(1, MAX_PORT)),
    "listen": Key("listen", parse_listen),
    "balancer": Key("balancer", member_of(BalancerKind)),
    "retries": Key("retries", whole_number(0, 100)),
    "proxy_protocol": Key("proxy_protocol", boolean),
}
SERVICE_SECTIONS: Mapping[str, Section] = {
    "queue": Section(
        QueueConfig, {"size": Key("size", whole_number(0, 1_000_000)), "timeout": Key("timeout_s", seconds(low=0.01))}
    ),
}
SERVICE_LISTS = ("hosts", "upstreams")
SERVICE_CACHE = "cache"
SERVICE_CACHE_SCALARS: Mapping[str, Key] = {"enabled": _CACHE_ENABLED, "ttl": _CACHE_TTL}
SERVICE_CACHE_LISTS: Mapping[str, Key] = {
    "bypass_paths": Key("bypass_paths", parse_path_prefix),
    "bypass_cookies": Key("bypass_cookies", cookie_names),
    "key_cookies": Key("key_cookies", cookie_names),
    "key_headers": Key("key_headers", key_header),
    "ignore_query": Key("ignore_query", parameter_names),
}
SERVICE_CACHE_STATUSES = "negative_ttl"
SHARED_CACHE_KEYS = tuple(name for name in _CACHE.keys if name not in SERVICE_CACHE_SCALARS)
"""Keys of the one cache that all services share: in a service they are misplaced, not unknown."""
UPSTREAM_KEYS: Mapping[str, Key] = {
    "host": Key("host", parse_upstream),
    "health_uri": Key("health_uri", parse_health_uri),
    "weight": Key("weight", whole_number(1, 1_000)),
    "proxy_protocol": Key("proxy_protocol", member_of(ProxyProtocol)),
    "max_connections": Key("max_connections", whole_number(0, 10_000_000)),
    "backup": Key("backup", boolean),
}


def join(path: str, key: str) -> str:
    """Return ``path.key``; a key that is no plain word is quoted and shortened."""
    name = key if _PLAIN_KEY.fullmatch(key) else shown(key)
    return f"{path}.{name}" if path else name


def read_entries(
    node: Node, path: str, known: Iterable[str], problems: Problems, misplaced: Mapping[str, str] | None = None
) -> dict[str, Entry]:
    """Return the entries of a mapping by key; unknown keys, repeated ones and what is no mapping are reported.

    A section without any value (everything in it commented out) is an empty one. ``misplaced``: what to say of keys
    that are known, but not here.
    """
    entries = read_any_entries(node, path, problems)
    names = tuple(known)
    for key, entry in entries.items():
        if key not in names:
            message = (misplaced or {}).get(key)
            if message is None:
                message = "unknown key; " + ("" if problems.is_full else did_you_mean(key, names))
            problems.add(entry.line, join(path, key), message)
    return entries


def read_any_entries(node: Node, path: str, problems: Problems) -> dict[str, Entry]:
    """Return the entries of a mapping whose keys are not known beforehand; as `read_entries` otherwise."""
    if not isinstance(node, nodes.Mapping):
        if not (isinstance(node, Scalar) and node.is_null):
            problems.add(node.line, path, f"expected a mapping (key: value), got {describe(node)}")
        return {}
    entries: dict[str, Entry] = {}
    for entry in node.entries:
        first = entries.setdefault(entry.key, entry)
        if first is not entry:
            problems.add(entry.line, join(path, entry.key), f"is given twice, first on line {first.line}")
    return entries


def read_item(node: Node, path: str, parse: Callable[[Scalar], T], problems: Problems) -> T | None:
    """Return the parsed value of one scalar node, or None when it was reported as bad."""
    if not isinstance(node, Scalar):
        problems.add(node.line, path, f"expected a single value, got {describe(node)}")
        return None
    try:
        return parse(node)
    except BadValue as error:
        problems.add(node.line, path, str(error))
        return None


def read_keys(entries: Mapping[str, Entry], path: str, keys: Mapping[str, Key], problems: Problems) -> dict[str, Any]:
    """Return attribute -> value for the entries of a table that could be read; the bad ones are reported."""
    values: dict[str, Any] = {}
    given: dict[str, Entry] = {}
    for name, entry in entries.items():
        key = keys.get(name)
        if key is None:
            continue
        first = given.setdefault(key.attribute, entry)
        if first is not entry:
            problems.add(entry.line, join(path, name), f"means the same as {first.key} on line {first.line}; give one")
            continue
        value = read_item(entry.value, join(path, name), key.parse, problems)
        if value is not None:
            values[key.attribute] = value
    return values


def read_section(node: Node, path: str, section: Section, problems: Problems) -> Any:
    """Return the dataclass of a section, with defaults for what is left out or bad."""
    entries = read_entries(node, path, section.keys, problems)
    return section.build(**read_keys(entries, path, section.keys, problems))


def read_list(entry: Entry | None, path: str, problems: Problems) -> list[tuple[str, Node]]:
    """Return ``(key path, node)`` of every item of a list; nothing for an entry that is missing or has no value."""
    if entry is None or (isinstance(entry.value, Scalar) and entry.value.is_null):
        return []
    if not isinstance(entry.value, nodes.Sequence):
        problems.add(entry.value.line, path, f"expected a list, got {describe(entry.value)}")
        return []
    return [(f"{path}[{index}]", item) for index, item in enumerate(entry.value.items)]
