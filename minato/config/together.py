"""What of a config does not go together, though each value by itself is good: limits that no request could keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minato.config import nodes
from minato.config.model import (
    AdminConfig,
    CacheConfig,
    HealthConfig,
    Limits,
    PassiveHealthConfig,
    QueueConfig,
    Service,
)
from minato.config.nodes import Entry, Node
from minato.config.problems import Problems, shown


def lines_of(entry: Entry | None) -> dict[str, int]:
    """Return the line of each key of a section; nothing where there is no section."""
    return {} if entry is None else _lines(entry.value)


def check_admin(entry: Entry | None, admin: AdminConfig, services: tuple[Service, ...], problems: Problems) -> None:
    """Note an admin address that a service listens on, too: clients of the service must not meet the admin API."""
    taken = next((service for service in services if admin.listen and admin.listen.overlaps(service.listen)), None)
    line = lines_of(entry).get("listen")
    if taken is not None and line is not None:
        problems.add(line, "admin.listen", f"{admin.listen} is taken by service {shown(taken.name)} ({taken.listen})")


def check_passive_health(entry: Entry, passive: PassiveHealthConfig, problems: Problems) -> None:
    """Note a longest ejection that is shorter than the first one."""
    if passive.max_eject_s < passive.eject_s:
        lines = lines_of(entry)
        name = "max_eject" if "max_eject" in lines else "eject"
        message = f"max_eject ({passive.max_eject_s:g} s) is less than eject ({passive.eject_s:g} s)"
        problems.add(lines[name], f"passive_health.{name}", message)


def check_health(entry: Entry, health: HealthConfig, problems: Problems) -> None:
    """Note an upstream that can never be up: every status that is good has it drain."""
    if all(any(low <= first and last <= high for low, high in _merged(health.drain)) for first, last in health.expect):
        message = "all statuses of expect are among them: no upstream would ever get a request"
        problems.add(lines_of(entry)["drain"], "health.drain", message)


def check_limits(entry: Entry, limits: Limits, problems: Problems) -> None:
    """Note a whole that is smaller than its part."""
    lines = lines_of(entry)
    if 0 < limits.partial_heads_bytes < limits.header_bytes:
        name = "partial_heads_bytes" if "partial_heads_bytes" in lines else "header_bytes"
        message = (
            f"partial_heads_bytes ({limits.partial_heads_bytes}) is less than header_bytes ({limits.header_bytes}): "
            "a head may have that many in parts"
        )
        problems.add(lines[name], f"limits.{name}", message)
    if limits.target_bytes > limits.header_bytes and {"target_bytes", "header_bytes"} <= lines.keys():
        message = f"a target is a part of the head, for which header_bytes allows {limits.header_bytes}"
        problems.add(lines["target_bytes"], "limits.target_bytes", message)


def check_cache(entry: Entry, cache: CacheConfig, problems: Problems) -> None:
    """Note single responses that may be larger than all of them."""
    lines = lines_of(entry)
    name = "max_size" if "max_size" in lines else "max_body_size"
    if cache.max_body_size_bytes > cache.max_memory_bytes and {name, "max_memory"} <= lines.keys():
        message = f"a response of that size would not be stored: max_memory is {cache.max_memory_bytes}"
        problems.add(lines[name], f"cache.{name}", message)


SECTION_CHECKS: Mapping[str, Callable[[Entry, Any, Problems], None]] = {
    "passive_health": check_passive_health,
    "health": check_health,
    "limits": check_limits,
    "cache": check_cache,
}


def check_queues(read: Sequence[tuple[str, Node, Service]], limits: Limits, problems: Problems) -> None:
    """Note queues in which nobody will ever wait, since no upstream has a cap."""
    for path, node, service in read:
        line = _lines(node).get("queue")
        if line is None or service.queue == QueueConfig():  # the default is harmless, as where it is left out
            continue
        caps = [one.max_connections for one in service.upstreams]
        if not any(limits.upstream_connections if own is None else own for own in caps):
            message = "is of use with max_connections of an upstream, or limits.upstream_connections, alone"
            problems.add(line, f"{path}.queue", message)


def check_sessions(read: Sequence[tuple[str, Node, Service]], problems: Problems) -> None:
    """Note cookies that never come back, and such that one service takes from another."""
    taken: dict[tuple[object, ...], tuple[str, int, str]] = {}
    for path, node, service in read:
        sticky = service.sticky
        if sticky is None:
            continue
        line, where = _lines(node)["sticky"], f"{path}.sticky"
        if not any(_may_match(sticky.path, rule.path) for rule in service.hosts):
            message = f"{shown(sticky.path)} has nothing in common with the hosts: browsers would never send the cookie"
            problems.add(line, f"{where}.path", message)
        for host in dict.fromkeys(rule.host for rule in service.hosts):
            key = (service.listen, host, sticky.cookie, sticky.path)
            secret = sticky.secret or service.name
            first = taken.setdefault(key, (where, line, secret))
            if first[2] != secret:
                message = f"{shown(sticky.cookie)} is set on {host} by {first[0]} (line {first[1]}), too"
                remedy = "give it another name or path, or both the same secret if they have the same upstreams"
                problems.add(line, f"{where}.cookie", f"{message}; {remedy}")
                break


def _may_match(cookie_path: str, prefix: str) -> bool:
    """Tell whether a request below the prefix may bring a cookie of that path (RFC 6265, 5.1.4)."""
    one, other = cookie_path.rstrip("/") + "/", prefix.rstrip("/") + "/"
    return one.startswith(other) or other.startswith(one)


def _lines(node: Node) -> dict[str, int]:
    return {item.key: item.line for item in node.entries} if isinstance(node, nodes.Mapping) else {}


def _merged(ranges: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Return inclusive ranges as the fewest that say the same."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged
