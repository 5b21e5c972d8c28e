"""The sections ``hash`` and ``sticky`` of one service, and what in them does not go together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from minato.config import nodes
from minato.config.affinity import HashBy, HashConfig, SameSite, StickyConfig
from minato.config.model import BalancerKind
from minato.config.nodes import Entry, Node, Scalar
from minato.config.problems import BadValue, Problems, shown
from minato.config.schema import Key, join, read_entries, read_keys
from minato.config.values import (
    boolean,
    cookie_name,
    hashed_header,
    load_factor,
    member_of,
    printable_text,
    whole_number,
)

AFFINITY_KEYS = ("hash", "sticky")

_MIN_SECRET_CHARS = 16
# draft-ietf-httpbis-rfc6265bis, 5.5: browsers keep no cookie for longer than 400 days.
_MAX_TTL_S = 34_560_000
# RFC 6265, 4.1.1: any character but controls and ";"; a space would not survive everywhere.
_COOKIE_PATH = re.compile(r"/[\x21-\x3a\x3c-\x7e]*")


def _cookie_path(scalar: Scalar) -> str:
    """Return the Path of a cookie."""
    path = printable_text(scalar)
    if not _COOKIE_PATH.fullmatch(path):
        raise BadValue(f'{shown(path)} is not the path of a cookie, such as "/" or "/shop"')
    return path


def _secret(scalar: Scalar) -> str:
    """Return a secret; no message shows it."""
    if scalar.is_null or len(scalar.text) < _MIN_SECRET_CHARS:
        raise BadValue(f"is too short: a secret has at least {_MIN_SECRET_CHARS} characters")
    try:
        return printable_text(scalar)
    except BadValue:
        raise BadValue("holds an unprintable character, or too many of them") from None


_HASH_KEYS: Mapping[str, Key] = {
    "by": Key("by", member_of(HashBy)),
    "name": Key("name", printable_text),
    "load_factor": Key("load_factor", load_factor),
}
_STICKY_KEYS: Mapping[str, Key] = {
    "cookie": Key("cookie", cookie_name),
    "ttl": Key("ttl_s", whole_number(0, _MAX_TTL_S)),
    "path": Key("path", _cookie_path),
    "secure": Key("secure", boolean),
    "httponly": Key("httponly", boolean),
    "samesite": Key("samesite", member_of(SameSite)),
    "secret": Key("secret", _secret),
}
_NAMED: Mapping[HashBy, Any] = {HashBy.HEADER: hashed_header, HashBy.COOKIE: cookie_name}


def read_affinity(
    entries: Mapping[str, Entry], balancer: BalancerKind | None, path: str, problems: Problems
) -> dict[str, Any]:
    """Return the attributes of a service that its sections ``hash`` and ``sticky`` become; the bad is reported.

    Args:
        entries: of the service.
        balancer: the service's; None where that was reported as bad.
        path: of the service.
        problems: where to report.
    """
    values: dict[str, Any] = {}
    before = problems.count
    if "hash" in entries:
        entry, where = entries["hash"], join(path, "hash")
        values["hash"] = _read_hash(entry.value, where, problems)
        if balancer not in (None, BalancerKind.CONSISTENT_HASH):
            problems.add(entry.line, where, 'is of use with balancer: "ConsistentHash" alone')
    if "sticky" in entries:
        values["sticky"] = _read_sticky(entries["sticky"].value, join(path, "sticky"), problems)
    if problems.count == before and len(values) == len(AFFINITY_KEYS):
        _check_together(values["hash"], values["sticky"], entries, path, problems)
    return values


def _read_hash(node: Node, path: str, problems: Problems) -> HashConfig:
    entries = read_entries(node, path, _HASH_KEYS, problems)
    values = read_keys(entries, path, _HASH_KEYS, problems)
    if "by" in entries and "by" not in values:
        return HashConfig()  # reported; what its name is to be is anybody's guess
    by = values.get("by", HashBy.URL)
    parse = _NAMED.get(by)
    name = entries.get("name")
    if parse is None:
        if name is not None:
            problems.add(name.line, join(path, "name"), 'is of use with by: "header" or by: "cookie" alone')
    elif name is None:
        problems.add(node.line, join(path, "name"), f'is missing: by: "{by.value}" hashes the one of that name')
    elif "name" in values:
        values |= read_keys({"name": name}, path, {"name": Key("name", parse)}, problems)
    return HashConfig(**values)


def _read_sticky(node: Node, path: str, problems: Problems) -> StickyConfig | None:
    before = problems.count
    entries = read_entries(node, path, _STICKY_KEYS, problems)
    if "cookie" not in entries and (entries or problems.count == before):
        problems.add(node.line, join(path, "cookie"), "is missing")
    values = read_keys(entries, path, _STICKY_KEYS, problems)
    if problems.count != before:
        return None
    sticky = StickyConfig(**values)
    _check_attributes(sticky, entries, path, problems)
    return sticky


def _check_attributes(sticky: StickyConfig, entries: Mapping[str, Entry], path: str, problems: Problems) -> None:
    """Report a cookie that browsers would not take (draft-ietf-httpbis-rfc6265bis, 5.7)."""
    if not sticky.secure:
        if sticky.samesite is SameSite.NONE:
            problems.add(entries["samesite"].line, join(path, "samesite"), "browsers take None only with secure: true")
        if sticky.cookie.lower().startswith(("__secure-", "__host-")):
            message = f"browsers take {shown(sticky.cookie)} only with secure: true"
            problems.add(entries["cookie"].line, join(path, "cookie"), message)
    if sticky.cookie.lower().startswith("__host-") and sticky.path != "/":
        message = f'browsers take {shown(sticky.cookie)} only with path: "/"'
        problems.add(entries["path"].line, join(path, "path"), message)


def _check_together(
    hashed: HashConfig, sticky: StickyConfig, entries: Mapping[str, Entry], path: str, problems: Problems
) -> None:
    if hashed.by is HashBy.COOKIE and hashed.name == sticky.cookie:
        section = entries["sticky"].value
        items = section.entries if isinstance(section, nodes.Mapping) else ()
        line = next(item.line for item in items if item.key == "cookie")
        message = f"{shown(sticky.cookie)} is the cookie that hash looks at, so not minato's to set"
        problems.add(line, join(join(path, "sticky"), "cookie"), message)
