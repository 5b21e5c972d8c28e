"""The services of a config: each one read by its tables, then checked against the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from minato.config.model import BalancerKind, HostRule, ListenAddress, Service, Upstream
from minato.config.nodes import Entry, Node
from minato.config.problems import Problems, shown
from minato.config.schema import (
    SERVICE_CACHE,
    SERVICE_LISTS,
    SERVICE_SCALARS,
    SERVICE_SECTIONS,
    UPSTREAM_KEYS,
    join,
    read_entries,
    read_item,
    read_keys,
    read_list,
    read_section,
)
from minato.config.service_affinity import AFFINITY_KEYS, read_affinity
from minato.config.service_cache import read_service_cache
from minato.config.urls import parse_host_rule

_ALL_ADDRESSES = ""
_UNSPECIFIED = frozenset({"0.0.0.0", "::"})
_YAML_BOOLEAN = {True: "true", False: "false"}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where something was said first."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path} (line {self.line})"


class ServicesReader:
    """Reads services in the order of the file and remembers what each has taken: names, addresses, hosts."""

    __slots__ = ("_introduced", "_listens", "_names", "_problems", "_rules")

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._names: dict[str, _Place] = {}
        self._listens: dict[tuple[int, str], _Place] = {}
        self._introduced: dict[ListenAddress, tuple[bool, _Place]] = {}
        self._rules: dict[tuple[ListenAddress, HostRule], _Place] = {}

    def read(self, node: Node, path: str) -> Service | None:
        """Return one service, or None when something is wrong with it; then it was reported."""
        before = self._problems.count
        known = (*SERVICE_SCALARS, *SERVICE_SECTIONS, SERVICE_CACHE, *AFFINITY_KEYS, *SERVICE_LISTS)
        entries = read_entries(node, path, known, self._problems)
        if not entries:
            if self._problems.count == before:
                self._problems.add(node.line, path, "is empty; a service has name, listen_port, hosts and upstreams")
            return None
        values = read_keys(entries, path, SERVICE_SCALARS, self._problems)
        self._require(entries, node, path, ("name", "listen_port"))
        self._check_name(values.get("name"), entries, path)
        listen = None
        if "listen_port" in values:
            listen = ListenAddress(values.get("listen", _ALL_ADDRESSES), values["listen_port"])
            self._check_listen(listen, entries, path)
            self._check_introduction(listen, values, entries, path)
        hosts = self._read_hosts(node, entries, path, listen)
        upstreams = self._read_upstreams(node, entries, path)
        for name, section in SERVICE_SECTIONS.items():
            if name in entries:
                values[name] = read_section(entries[name].value, join(path, name), section, self._problems)
        if SERVICE_CACHE in entries:
            values["cache"] = read_service_cache(
                entries[SERVICE_CACHE].value, join(path, SERVICE_CACHE), self._problems
            )
        if "balancer" not in entries:
            values["balancer"] = BalancerKind.ROUND_ROBIN
        values |= read_affinity(entries, values.get("balancer"), path, self._problems)
        if listen is None or self._problems.count != before:
            return None
        del values["listen_port"]
        return Service(**values | {"listen": listen, "hosts": hosts, "upstreams": upstreams})

    def _require(self, entries: Mapping[str, Entry], node: Node, path: str, keys: tuple[str, ...]) -> None:
        for key in keys:
            if key not in entries:
                self._problems.add(node.line, join(path, key), "is missing")

    def _check_name(self, name: str | None, entries: Mapping[str, Entry], path: str) -> None:
        if name is None:
            return
        here = _Place(join(path, "name"), entries["name"].line)
        first = self._names.setdefault(name, here)
        if first is not here:
            self._problems.add(here.line, here.path, f"{shown(name)} is taken by {first}")

    def _check_listen(self, listen: ListenAddress, entries: Mapping[str, Entry], path: str) -> None:
        """Report an address that would get another service's connections: all addresses beside 0.0.0.0 or ``::``."""
        here = _Place(path, entries["listen_port"].line)
        self._listens.setdefault((listen.port, listen.host), here)
        if listen.host == _ALL_ADDRESSES:
            others = [self._listens.get((listen.port, host)) for host in _UNSPECIFIED]
        elif listen.host in _UNSPECIFIED:
            others = [self._listens.get((listen.port, _ALL_ADDRESSES))]
        else:
            others = []
        for other in filter(None, others):
            message = f"{listen} overlaps the address of {other}; leave out listen in both, or give both the same"
            self._problems.add(here.line, join(path, "listen" if listen.host else "listen_port"), message)

    def _check_introduction(
        self, listen: ListenAddress, values: Mapping[str, object], entries: Mapping[str, Entry], path: str
    ) -> None:
        """Report a service that differs about the PROXY protocol from one on its address; it comes before any Host."""
        key = "proxy_protocol" if "proxy_protocol" in entries else "listen_port"
        if key not in values:
            return
        is_introduced = bool(values.get("proxy_protocol", False))
        here = _Place(join(path, key), entries[key].line)
        first, place = self._introduced.setdefault(listen, (is_introduced, here))
        if first is not is_introduced:
            message = f"is {_YAML_BOOLEAN[is_introduced]} on {listen}, but {_YAML_BOOLEAN[first]} by {place}"
            self._problems.add(
                here.line, join(path, "proxy_protocol"), f"{message}; services on one address must agree"
            )

    def _read_hosts(
        self, node: Node, entries: Mapping[str, Entry], path: str, listen: ListenAddress | None
    ) -> tuple[HostRule, ...]:
        hosts = []
        for item_path, item in self._required_list(node, entries, path, "hosts"):
            parsed = read_item(item, item_path, parse_host_rule, self._problems)
            if parsed is None:
                continue
            rule, port = parsed
            hosts.append(rule)
            if listen is None:
                continue
            if port not in (None, listen.port):
                message = f"names port {port}, but the service listens on {listen.port}; leave the port out"
                self._problems.add(item.line, item_path, message)
            here = _Place(item_path, item.line)
            first = self._rules.setdefault((listen, rule), here)
            if first is not here:
                message = f"{shown(rule.host + rule.path)} on {listen} is taken by {first}"
                self._problems.add(here.line, here.path, message)
        return tuple(hosts)

    def _read_upstreams(self, node: Node, entries: Mapping[str, Entry], path: str) -> tuple[Upstream, ...]:
        before = self._problems.count
        upstreams: list[Upstream] = []
        taken: dict[tuple[str, str, str, str], _Place] = {}
        for item_path, item in self._required_list(node, entries, path, "upstreams"):
            upstream = self._read_upstream(item, item_path)
            if upstream is None:
                continue
            upstreams.append(upstream)
            here = _Place(item_path, item.line)
            first = taken.setdefault((upstream.scheme, upstream.authority, upstream.path, upstream.query), here)
            if first is not here:
                message = f"{shown(upstream.url)} is the same server as {first}; give it a weight instead"
                self._problems.add(here.line, join(item_path, "host"), message)
        if self._problems.count == before and all(upstream.backup for upstream in upstreams):
            line = entries["upstreams"].line
            self._problems.add(line, join(path, "upstreams"), "all are backups; one at least must not be")
        return tuple(upstreams)

    def _read_upstream(self, node: Node, path: str) -> Upstream | None:
        before = self._problems.count
        entries = read_entries(node, path, UPSTREAM_KEYS, self._problems)
        if entries or self._problems.count == before:  # what is no mapping misses nothing in particular
            self._require(entries, node, path, ("host",))
        values = read_keys(entries, path, UPSTREAM_KEYS, self._problems)
        upstream: Upstream | None = values.pop("host", None)
        return None if upstream is None else replace(upstream, **values)

    def _required_list(self, node: Node, entries: Mapping[str, Entry], path: str, key: str) -> list[tuple[str, Node]]:
        """Return the items of a list that must hold one at least."""
        before = self._problems.count
        items = read_list(entries.get(key), join(path, key), self._problems)
        if not items and self._problems.count == before:
            line = entries[key].line if key in entries else node.line
            self._problems.add(line, join(path, key), "is empty" if key in entries else "is missing")
        return items
