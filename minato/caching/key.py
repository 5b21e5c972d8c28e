"""Cache keys: the primary key of a request and the variant that Vary picks (RFC 9111, 2 and 4.1)."""

from __future__ import annotations

import re

from minato.protocol.fields import fold_name
from minato.protocol.message import Fields, list_members

ResourceKey = tuple[int, bytes, bytes, bytes]
"""``(service index, scheme, host, target)``; the method is always GET, since nothing else is stored."""

PrimaryKey = ResourceKey | tuple[int, bytes, bytes, bytes, bytes]
"""A resource's key, with the extra part behind it where the service's rules have one."""

VariantNames = tuple[bytes, ...]
"""The field names of Vary: lower case, sorted, once each; empty without Vary."""

VariantValues = tuple[bytes | None, ...]
"""A request's values of those fields, normalized; None where the field is absent."""

_FIELD_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_MAX_VARIANT_NAMES = 16
# minato writes these into the request itself: what the upstream varies on is then not what the client sent.
_WRITTEN_BY_PROXY = frozenset(
    {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-real-ip", b"forwarded", b"via", b"connection"}
)
# Preferences: neither case nor order of the members means anything, and q=1 is what is said by saying nothing
# (RFC 9110, 12.4.2 and 12.5.2 to 12.5.4).
_PREFERENCES = frozenset({b"accept-encoding", b"accept-language", b"accept-charset"})
# Values that are one text and no list: a comma in them is nothing but a comma.
_NO_LISTS = frozenset({b"cookie", b"user-agent", b"referer", b"authorization", b"date", b"if-modified-since"})
# What stays as it is, or a comma. What is no member's end is read once, an open quoted string up to the end included.
_QUOTED_OR_COMMA = re.compile(
    rb'("(?:[^"\\]++|\\.?+)*+(?:"|\Z)|[ \t]++(?!,))|[ \t]*+,[ \t]*+',
    re.DOTALL,
)
_WEIGHT = re.compile(rb"q=(?:(1)(?:\.0{0,3})?|(0(?:\.\d{0,3})?))")


_DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}


def normalize_authority(authority: bytes, scheme: bytes) -> bytes:
    """Return a lower-case ``host[:port]`` without the scheme's own port, an empty one, and leading zeros.

    RFC 9110, 4.2.3 and RFC 3986, 6.2.3: all such spellings name the same origin.
    """
    name, colon, port = authority.rpartition(b":")
    if not colon or b"]" in port:  # no port, or an IPv6 address without one
        return authority
    number = port.lstrip(b"0") or port[-1:]
    return name if not number or number == _DEFAULT_PORTS.get(scheme) else name + b":" + number


def resource_of(key: PrimaryKey) -> ResourceKey:
    """Return the key without its extra part: what all that is stored of one URL has in common."""
    return key[:4]


class ExtendedKeys:
    """The keys with an extra part under which something is stored, to be found by their resource."""

    __slots__ = ("_by_resource",)

    def __init__(self) -> None:
        self._by_resource: dict[ResourceKey, set[PrimaryKey]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_resource.values()))

    def add(self, key: PrimaryKey) -> None:
        """Note a key; one without an extra part needs no note."""
        if (resource := resource_of(key)) != key:
            self._by_resource.setdefault(resource, set()).add(key)

    def discard(self, key: PrimaryKey) -> None:
        """Forget a key under which nothing is stored any more."""
        if (resource := resource_of(key)) != key:
            keys = self._by_resource[resource]
            keys.discard(key)
            if not keys:
                del self._by_resource[resource]

    def clear(self) -> None:
        """Forget every key."""
        self._by_resource.clear()

    def all_of(self, resource: ResourceKey) -> list[PrimaryKey]:
        """Return every key that may have something stored of a resource, the one without an extra part first."""
        return [resource, *self._by_resource.get(resource, ())]


def read_variant_names(fields: Fields) -> VariantNames | None:
    """Return the names that a response's Vary nominates, or None where no request can be told to match.

    RFC 9111, 4.1: a Vary that contains ``*`` always fails to match. So does what is no field name, a field that the
    proxy itself writes, or more than 16 names.
    """
    names = tuple(sorted(set(list_members(fields, b"vary"))))
    if len(names) > _MAX_VARIANT_NAMES:
        return None
    if any(name == b"*" or name in _WRITTEN_BY_PROXY or not _FIELD_NAME.fullmatch(name) for name in names):
        return None
    return names


def select_variant_values(names: VariantNames, fields: Fields) -> VariantValues:
    """Return a request's values of the fields that Vary nominates.

    Lines of one name are combined; white space around commas is normalized, and so are preferences (RFC 9111, 4.1:
    "adding or removing whitespace", "combining multiple header field lines", "normalizing both header field values in a
    way that is known to have identical semantics"). An absent field matches only an absent one.
    """
    if not names:
        return ()
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if name in names:
            found.setdefault(name, []).append(value)
    return tuple(_normalize(name, found[name]) if name in found else None for name in names)


def has_name_taken_for(names: VariantNames, fields: Fields) -> bool:
    """Tell whether a request has a field that is none of those names, and that some server takes for one of them."""
    folded = {fold_name(name) for name in names}
    return any(fold_name(name) in folded and name not in names for name, _ in fields)


def _normalize(name: bytes, lines: list[bytes]) -> bytes:
    if name in _NO_LISTS:
        return b",".join(lines)
    if name in _PREFERENCES:
        members = {_normalize_preference(member) for line in lines for member in line.split(b",")}
        return b",".join(sorted(members - {b""}))
    value = b",".join(lines)
    if b"," not in value:
        return value
    return _QUOTED_OR_COMMA.sub(lambda match: match[1] or b",", value).strip(b" \t")


def _normalize_preference(member: bytes) -> bytes:
    """Return ``token`` or ``token;q=0.5``, in lower case; what is no weight is left as it is."""
    token, semicolon, weight = member.partition(b";")
    token = token.strip(b" \t").lower()
    if not semicolon:
        return token
    weight = weight.strip(b" \t").lower()
    match = _WEIGHT.fullmatch(weight)
    if match is None:
        return token + b";" + weight
    if match[1]:
        return token
    return token + b";q=" + (match[2].rstrip(b"0").rstrip(b".") or b"0")
