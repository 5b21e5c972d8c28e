"""Field lines and blocks of them: what a line means is worked out once per distinct line, and kept while it repeats.

Both codecs yield the fields of a head as a `FieldBlock`. What follows from the lines alone (what is forwarded, how it
looks on the wire) is derived from the block in one place and kept with it. The express codec finds those it
has seen before (protocol.field_table); the h11 codec makes a block of what h11 read.
"""

from __future__ import annotations

from collections import Counter
from operator import attrgetter
from typing import Final

Fields = list[tuple[bytes, bytes]]
"""An ordered list of ``(lower-case name, value)``; values carry no white space around them."""

# Roles are counters of eight bits each in one integer: the sum over a head's lines says how many there are of each.
HOST: Final = 1
LENGTH: Final = 1 << 8
CODING: Final = 1 << 16
CONNECTION: Final = 1 << 24
HOP_BY_HOP: Final = 1 << 32
EXPECT: Final = 1 << 40
FORWARDED: Final = 1 << 48
DATE: Final = 1 << 56
UPGRADE: Final = 1 << 64
OVERRIDE: Final = 1 << 72
VIA: Final = 1 << 80
RARE: Final = 1 << 88  # has a meaning that the h11 codec alone looks for
COUNT: Final = 0xFF
MAX_LINES: Final = 200  # what a counter holds, and then some

HOP_BY_HOP_NAMES: Final = frozenset(
    [
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"content-length",
        b"upgrade",
        b"http2-settings",
        # Some servers take an underscore for a hyphen; what leaves minato has no framing but its own, in any spelling.
        b"keep_alive",
        b"proxy_connection",
        b"transfer_encoding",
        b"content_length",
    ]
)
# RFC 9110, 7.6.1: "A sender MUST NOT send a connection option corresponding to a field that is intended for all
# recipients of the content." Nominating one of these takes nothing away: on it depends who may have the message, what
# its content is, or whether and for how long a cache may keep it.
_NEVER_NOMINATED: Final = frozenset(
    [
        *[b"host", b"expect", b"date", b"via", b"forwarded", b"x-real-ip", b"authorization", b"cookie", b"cookie2"],
        *[b"range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range"],
        *[b"cache-control", b"pragma", b"age", b"expires", b"vary", b"warning", b"etag", b"last-modified"],
        *[b"cdn-cache-control", b"minato-cache-control", b"surrogate-control", b"cache-tag", b"cache-status"],
        *[b"content-type", b"content-encoding", b"content-language", b"content-location", b"content-range"],
        *[b"content-disposition", b"content-security-policy", b"content-digest", b"repr-digest", b"accept-ranges"],
        *[b"location", b"retry-after", b"set-cookie", b"set-cookie2", b"www-authenticate"],
    ]
)
_ROLES: Final = {
    **dict.fromkeys(HOP_BY_HOP_NAMES, HOP_BY_HOP),
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"expect": EXPECT,
    b"date": DATE,
    b"upgrade": UPGRADE,
    b"via": VIA,
    b"te": HOP_BY_HOP | RARE,
    b"trailer": HOP_BY_HOP | RARE,
    b"max-forwards": RARE,
}
# Some server or framework lets these stand in for the method, the target, the host or the scheme of the request.
_OVERRIDING: Final = frozenset(
    [
        *[b"x-http-method", b"x-http-method-override", b"x-method-override", b"x-original-method"],
        *[b"x-original-url", b"x-original-uri", b"x-rewrite-url", b"x-script-name"],
        *[b"x-host", b"x-original-host", b"x-http-host-override", b"x-forwarded", b"proxy"],
        *[b"x-scheme", b"x-url-scheme", b"front-end-https"],
    ]
)
_NOT_UPSTREAM: Final = HOP_BY_HOP_NAMES | {b"host", b"expect"}


def fold_name(name: bytes) -> bytes:
    """Return what servers that hand fields on as CGI variables (RFC 3875, 4.1.18) take a name for."""
    return name.replace(b"_", b"-")


def is_forwarded_name(name: bytes) -> bool:
    """Tell whether a field says on behalf of whom a proxy forwards; only trusted proxies are believed.

    Some servers take an underscore for a hyphen, so ``x_forwarded_for`` is one, too.
    """
    plain = fold_name(name)
    return plain.startswith(b"x-forwarded-") or plain in (b"forwarded", b"x-real-ip")


class FieldLine:
    """One valid field line.

    Attributes:
        name: lower case.
        value: without white space around it.
        pair: both, as `Fields` hold them.
        role: its counter.
        upstream: the line as it goes to an upstream, empty where it does not or is made anew (Host, X-Forwarded-*).
        downstream: the line as it goes to a client, empty where it does not.
    """

    __slots__ = ("downstream", "name", "pair", "role", "upstream", "value")

    def __init__(self, name: bytes, value: bytes) -> None:
        self.name = name
        self.value = value
        self.pair = (name, value)
        self.role = _role_of(name)
        wire = b"%b: %b\r\n" % (name, value)
        self.upstream = b"" if name in _NOT_UPSTREAM or self.role == FORWARDED else wire
        self.downstream = b"" if name in HOP_BY_HOP_NAMES else wire


def is_overriding_name(name: bytes) -> bool:
    """Tell whether some server lets a field stand in for the method, the target, the host or the scheme."""
    return fold_name(name) in _OVERRIDING


def _role_of(name: bytes) -> int:
    if is_forwarded_name(name):
        return FORWARDED
    return OVERRIDE if is_overriding_name(name) else _ROLES.get(name, 0)


_PAIR: Final = attrgetter("pair")
_ROLE: Final = attrgetter("role")
_UPSTREAM: Final = attrgetter("upstream")
_DOWNSTREAM: Final = attrgetter("downstream")


class FieldBlock:
    """The fields of one head, in order: they never change once it is made. What is derived from them is kept with it.

    Attributes:
        roles: the sum of its lines' roles.
        tag: for protocol.field_table, what names it among the blocks that are kept; empty for one that is not.
        facts: for the express codec, what it made of the block.
        cookie: of a block made by ``with_cookie``: the block without it, the value, and the position of its line.
        cookie_frame: for protocol.field_table, the bytes in front of and behind the cookie that it had last, from
            the CRLF in front of their first line to the end of their heads, and the position of its line.
        agents: for net.record, its Referer and its User-Agent as the access log writes them.
        is_plain: for net.hits, whether the cache has nothing in it to weigh; None before it was asked.
        forwarded: for protocol.forward, the lines of a forwarded request in front of and behind the client's address.
        around_cookie: for protocol.forward, the same lines where a cookie is put among them.
    """

    # Defaults of the class, since most blocks of a new cookie are asked for next to nothing: 0.6 us less for each.
    tag: bytes = b""
    is_plain: bool | None = None
    facts: object = None
    agents: bytes | None = None
    forwarded: tuple[bytes, bytes] | None = None
    around_cookie: tuple[int, bytes, bytes, bytes] | None = None
    _lines: list[FieldLine] | None = None
    _fields: Fields | None = None
    cookie: tuple[FieldBlock, bytes, int] | None = None
    cookie_frame: tuple[bytes, bytes, int] | None = None
    _host: bytes | None = None
    _roles: int | None = None
    _upstream_wire: bytes | None = None
    _downstream_wire: bytes | None = None
    _end_to_end: Fields | None = None

    def __init__(self, lines: list[FieldLine] | None, fields: Fields | None = None) -> None:
        """Make a block of lines, or of fields (one of them is given)."""
        self._lines = lines
        if fields is not None:
            self._fields = fields

    def __repr__(self) -> str:
        return f"<FieldBlock {self.fields!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldBlock) and self.fields == other.fields

    __hash__ = None  # type: ignore[assignment]

    @property
    def lines(self) -> list[FieldLine]:
        lines = self._lines
        if lines is None:
            if self.cookie is not None:
                base, value, at = self.cookie
                cookie = FieldLine(b"cookie", value)
                lines = [*base.lines[:at], cookie, *base.lines[at:]]
            else:
                lines = [FieldLine(name, value) for name, value in self._fields or ()]
            self._lines = lines
        return lines

    @property
    def fields(self) -> Fields:
        fields = self._fields
        if fields is None:
            fields = self._fields = list(map(_PAIR, self.lines))
        return fields

    @property
    def roles(self) -> int:
        """The sum of the lines' roles."""
        roles = self._roles
        if roles is None:
            lines = self.lines if self.cookie is None else self.cookie[0].lines
            roles = self._roles = sum(map(_ROLE, lines)) if len(lines) <= MAX_LINES else _count_many(lines)
        return roles

    @property
    def has_date(self) -> bool:
        return bool(self.roles & (COUNT * DATE))

    @property
    def has_override(self) -> bool:
        """Whether it has a field that may stand in for the method, the target, the host or the scheme."""
        return bool(self.roles & (COUNT * OVERRIDE))

    @property
    def upstream_wire(self) -> bytes:
        """Its lines as they go to an upstream, but for what is made anew: framing, Host, X-Forwarded-*, Expect."""
        wire = self._upstream_wire
        if wire is None:
            wire = self._upstream_wire = b"".join(map(_UPSTREAM, self._end_to_end_lines()))
        return wire

    def upstream_wire_around(self, at: int) -> tuple[bytes, bytes]:
        """Return ``upstream_wire`` in two parts: of the lines in front of line ``at``, and of the others."""
        before, behind = (self._without_nominated(lines) for lines in (self.lines[:at], self.lines[at:]))
        return b"".join(map(_UPSTREAM, before)), b"".join(map(_UPSTREAM, behind))

    @property
    def downstream_wire(self) -> bytes:
        """Its lines as they go to a client, but for the framing."""
        wire = self._downstream_wire
        if wire is None:
            wire = self._downstream_wire = b"".join(map(_DOWNSTREAM, self._end_to_end_lines()))
        return wire

    @property
    def end_to_end(self) -> Fields:
        """Its fields without those for one connection only."""
        fields = self._end_to_end
        if fields is None:
            fields = self._end_to_end = strip_hop_by_hop(self.fields)
        return fields

    def with_cookie(self, value: bytes, at: int) -> FieldBlock:
        """Return a block with one more line, a Cookie of that valid value, at position ``at``.

        What is known of this block need not be found out again.
        """
        block = FieldBlock(None)
        block.cookie = (self, value, at)
        return block

    @property
    def known(self) -> FieldBlock:
        """This block, without the cookie that may be the only new thing about it: what is kept there is found again."""
        return self if self.cookie is None else self.cookie[0]

    @property
    def host(self) -> bytes:
        """The Host field as it was sent, empty where there is none."""
        host = self._host
        if host is None:
            host = self._host = first_value(self.fields, b"host") or b""
        return host

    @property
    def count(self) -> int:
        """How many lines it has."""
        return len(self.lines) if self.cookie is None else len(self.cookie[0].lines) + 1

    def _end_to_end_lines(self) -> list[FieldLine]:
        return self._without_nominated(self.lines)

    def _without_nominated(self, lines: list[FieldLine]) -> list[FieldLine]:
        """Return those lines of the block that Connection does not nominate; "close" may be a field's name, too."""
        if not self.roles & (COUNT * CONNECTION):
            return lines
        nominated = _nominated(self.fields)
        return [line for line in lines if line.name not in nominated]


def _count_many(lines: list[FieldLine]) -> int:
    """Return the sum of more roles than the counters hold: a full one stays full."""
    return sum(role * min(count, COUNT) for role, count in Counter(map(_ROLE, lines)).items())


def field_values(fields: Fields, name: bytes) -> list[bytes]:
    """Return the values of every field line of that lower-case name, in order."""
    return [value for key, value in fields if key == name]


def first_value(fields: Fields, name: bytes) -> bytes | None:
    """Return the first value of that lower-case name, or None."""
    for key, value in fields:
        if key == name:
            return value
    return None


def list_members(fields: Fields, name: bytes) -> list[bytes]:
    """Return the comma-separated members of a list field, lower case, empty ones left out (RFC 9110, 5.6.1)."""
    members = []
    for key, value in fields:
        if key == name:
            members += [member for raw in value.split(b",") if (member := raw.strip(b" \t").lower())]
    return members


def make_block(fields: Fields) -> FieldBlock:
    """Return the block of fields that a parser read."""
    return FieldBlock(None, fields)


def strip_hop_by_hop(fields: Fields) -> Fields:
    """Return the fields without those for one connection only, the ones that Connection nominates among them."""
    dropped = HOP_BY_HOP_NAMES | _nominated(fields)
    return [(name, value) for name, value in fields if name not in dropped]


def is_plain_connection(fields: Fields) -> bool:
    """Tell whether Connection says nothing but close or keep-alive."""
    return all(member in (b"close", b"keep-alive") for member in list_members(fields, b"connection"))


def _nominated(fields: Fields) -> frozenset[bytes]:
    names = frozenset(list_members(fields, b"connection")) - _NEVER_NOMINATED
    return frozenset([name for name in names if not is_forwarded_name(name)])
