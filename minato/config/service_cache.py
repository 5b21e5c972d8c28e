"""The cache section of one service: what it does differently from the top-level one."""

from __future__ import annotations

from typing import Any

from minato.config.model import ServiceCacheConfig
from minato.config.nodes import Entry, Node
from minato.config.problems import BadValue, Problems
from minato.config.schema import (
    SERVICE_CACHE_LISTS,
    SERVICE_CACHE_SCALARS,
    SERVICE_CACHE_STATUSES,
    SHARED_CACHE_KEYS,
    join,
    lifetime_s,
    read_any_entries,
    read_entries,
    read_item,
    read_keys,
    read_list,
)
from minato.config.values import negative_statuses

_OWN_KEYS = (*SERVICE_CACHE_SCALARS, *SERVICE_CACHE_LISTS, SERVICE_CACHE_STATUSES)
_MISPLACED = dict.fromkeys(SHARED_CACHE_KEYS, "belongs to the cache section at the top: all services share one cache")


def read_service_cache(node: Node, path: str, problems: Problems) -> ServiceCacheConfig:
    """Return the section, with defaults for what is left out or bad; the bad is reported."""
    entries = read_entries(node, path, _OWN_KEYS, problems, _MISPLACED)
    values: dict[str, Any] = read_keys(entries, path, SERVICE_CACHE_SCALARS, problems)
    for name, key in SERVICE_CACHE_LISTS.items():
        items = read_list(entries.get(name), join(path, name), problems)
        parsed = [read_item(item, item_path, key.parse, problems) for item_path, item in items]
        values[key.attribute] = tuple(dict.fromkeys(value for value in parsed if value is not None))
    if SERVICE_CACHE_STATUSES in entries:
        entry = entries[SERVICE_CACHE_STATUSES]
        values["negative_ttl_s"] = _read_statuses(entry, join(path, SERVICE_CACHE_STATUSES), problems)
    return ServiceCacheConfig(**values)


def _read_statuses(entry: Entry, path: str, problems: Problems) -> tuple[tuple[int, int, float], ...]:
    """Return ``(first status, last status, seconds)``, single statuses first."""
    found = []
    for name, status in read_any_entries(entry.value, path, problems).items():
        try:
            first, last = negative_statuses(name)
        except BadValue as error:
            problems.add(status.line, join(path, name), str(error))
            continue
        ttl_s = read_item(status.value, join(path, name), lifetime_s, problems)
        if ttl_s is not None:
            found.append((first, last, ttl_s))
    return tuple(sorted(found, key=lambda one: (one[1] - one[0], one[0])))
