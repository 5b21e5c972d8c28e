"""Who the client is behind trusted proxies, and what upstreams are told: X-Forwarded-For, Forwarded (RFC 7239).

A proxy appends the address it was asked from. So the right-most member was written by the peer, the one before it by
whom that names, and so on: members are believed from the right, as long as those who wrote them are trusted. What a
client wrote stands further left, however it is quoted; see `_split_last`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from minato.config.model import ClientField
from minato.protocol.fields import Fields, field_values
from minato.protocol.guard import Malformed
from minato.protocol.message import RequestHead
from minato.protocol.target import check_authority

MAX_HOPS: Final = 64
MAX_CHAIN_BYTES: Final = 4_096
"""Bounds of what is read of a chain, from its right end; what is further left is dropped."""

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
# RFC 7239, 4: forwarded-pair = token "=" value, and no white space around "=" or ";".
_PAIR: Final = re.compile(rb"(%b)=(?:(%b)|(%b))" % (_TOKEN, _TOKEN, _QUOTED))
_ELEMENT: Final = re.compile(
    rb"[ \t]*((?:;*P(?:;+P)*;*)?)[ \t]*".replace(b"P", rb"%b=(?:%b|%b)" % (_TOKEN, _TOKEN, _QUOTED))
)
_IS_TOKEN: Final = re.compile(_TOKEN)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
# RFC 7239, 6: a node is an address, "unknown" or an obfuscated identifier; then a port, perhaps obfuscated, too.
_PORT: Final = rb"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
_NODE: Final = re.compile(
    rb"(?:([0-9.]{7,15})|\[([0-9A-Fa-f:.]{2,45})\]|unknown|_[A-Za-z0-9._-]+)%b" % _PORT, re.IGNORECASE
)
# In X-Forwarded-For there are bare IPv6 addresses besides, and no obfuscated ones.
_XFF_NODE: Final = re.compile(
    rb"(?:([0-9.]{7,15})(?::[0-9]{1,5})?|\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?|([0-9A-Fa-f:.]{2,45})|unknown)",
    re.IGNORECASE,
)
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{0,31}")


@dataclass(frozen=True, slots=True)
class Claims:
    """What trusted proxies say of a request, as far as it is believed.

    Attributes:
        client: the address of the client: the right-most that is not a trusted proxy's.
        scheme: what it asked by, lower case.
        host: what it asked for, empty where none is known.
        fields: X-Forwarded-For, -Proto, -Host and Forwarded for the upstream.
        passes_others: whether X-Forwarded-Port and the like go on as they came.
    """

    client: str
    scheme: bytes
    host: bytes
    fields: Fields
    passes_others: bool

    def passes(self, name: bytes) -> bool:
        """Tell whether a forwarding field that is not made anew goes on; no proxy writes underscores, so clients do."""
        return self.passes_others and name.startswith(b"x-forwarded-") and b"_" not in name


@dataclass(frozen=True, slots=True)
class _Hop:
    """One member of a chain: ``node`` as received, its address where it has one, and what else it says."""

    node: bytes
    address: str | None
    scheme: bytes = b""
    host: bytes = b""
    element: bytes = b""  # as received, in Forwarded


def read_claims(
    head: RequestHead, peer: str, is_trusted: Callable[[str], bool], believe: ClientField, *, sends_forwarded: bool
) -> Claims:
    """Return what a trusted peer says about its client.

    Args:
        head: the request.
        peer: its address.
        is_trusted: tells whether an address is a trusted proxy's.
        believe: the field that counts.
        sends_forwarded: whether the upstream gets Forwarded in any case; it gets it where the peer sent it, too.
    """
    fields = head.block.end_to_end
    by_forwarded = believe is ClientField.FORWARDED
    hops = _read_forwarded(fields) if by_forwarded else _read_x_forwarded_for(fields)
    vouched = _count_vouched(hops, is_trusted)
    client = next((hop.address for hop in hops[:vouched][::-1] if hop.address is not None), peer)
    if by_forwarded:
        scheme = next((hop.scheme for hop in hops[:vouched][::-1] if hop.scheme), b"http")
        host = next((hop.host for hop in hops[:vouched][::-1] if hop.host), b"")
    else:
        scheme = _last_scheme(fields) or b"http"
        host = _last_host(fields)
    host = host or head.host_as_sent
    made: Fields = [
        (b"x-forwarded-for", b", ".join([*(_as_xff(hop) for hop in reversed(hops)), peer.encode("ascii")])),
        (b"x-forwarded-proto", scheme),
    ]
    if host:
        made.append((b"x-forwarded-host", host))
    if field_values(fields, b"x-real-ip"):
        made.append((b"x-real-ip", client.encode("ascii")))
    if sends_forwarded or (by_forwarded and hops):
        elements = [_element(hop, index == vouched - 1, scheme, host) for index, hop in enumerate(hops)]
        own = render_element(peer.encode("ascii"), head.host_as_sent)
        made.append((b"forwarded", b", ".join([*reversed(elements), own])))
    return Claims(client, scheme, host, made, not by_forwarded)


def render_element(peer: bytes, host: bytes) -> bytes:
    """Return minato's own element of Forwarded: who asked it, by what and for what.

    There is no ``by``: it would tell about the inside what nobody out there has to know.
    """
    element = b"for=%b;proto=http" % _node_of(peer)
    return element + b";host=" + _quote(host) if host else element


# -- chains, from the right


def _read_x_forwarded_for(fields: Fields) -> list[_Hop]:
    """Return the hops from the right; a member that is none ends the chain, and what is left of it is dropped."""
    chain = _join_end(fields, b"x-forwarded-for")
    hops: list[_Hop] = []
    for raw in reversed(chain.split(b",")):
        member = raw.strip(b" \t")
        if not member:
            continue  # RFC 9110, 5.6.1.2: empty list members are ignored
        match = _XFF_NODE.fullmatch(member)
        if match is None or len(hops) == MAX_HOPS:
            break
        found = match[1] or match[2] or match[3]
        address = _address(found, is_bracketed=bool(match[2])) if found else None
        if found and address is None:
            break
        hops.append(_Hop(member, address))
    return hops


def _join_end(fields: Fields, name: bytes) -> bytes:
    """Return the lines of a list field as one, from its end; a member that does not fit whole is left out."""
    joined = b",".join(field_values(fields, name))
    return joined if len(joined) <= MAX_CHAIN_BYTES else joined[-MAX_CHAIN_BYTES:].partition(b",")[2]


def _read_forwarded(fields: Fields) -> list[_Hop]:
    """Return the hops from the right; an element that is malformed or names nobody ends the chain."""
    chain = _join_end(fields, b"forwarded")
    hops: list[_Hop] = []
    while chain and len(hops) < MAX_HOPS:
        split = _split_last(chain)
        if split is None:
            break
        chain, element = split
        if not element:
            continue
        hop = _read_element(element)
        if hop is None:
            break
        hops.append(hop)
    return hops


def _split_last(chain: bytes) -> tuple[bytes, bytes] | None:
    """Return what is in front of the last element, and that element; None where it is malformed.

    A comma in a quoted string separates nothing. Yet the shortest end that is an element is the last one, since what
    begins inside a quoted string holds an odd number of quotes and is no element. So a quote that a client left open
    cannot swallow what a proxy appended.
    """
    stop = len(chain)
    while True:
        comma = chain.rfind(b",", 0, stop)
        match = _ELEMENT.fullmatch(chain, comma + 1)
        if match is not None:
            return chain[: max(comma, 0)], match[1]
        if comma < 0:
            return None
        stop = comma


def _read_element(element: bytes) -> _Hop | None:
    """Return the hop of a well-formed element; None without ``for``, or with a parameter given twice."""
    values: dict[bytes, bytes] = {}
    for name, token, quoted in _PAIR.findall(element):
        value = token or _ESCAPED.sub(rb"\1", quoted[1:-1])
        # RFC 7239, 4: "Each parameter MUST NOT occur more than once per field-value" (of one element).
        if name.lower() in values:
            return None
        values[name.lower()] = value
    node = values.get(b"for", b"")
    match = _NODE.fullmatch(node)
    if match is None:
        return None
    found = match[1] or match[2]
    address = _address(found, is_bracketed=bool(match[2])) if found else None
    if found and address is None:
        return None
    return _Hop(node, address, _scheme(values.get(b"proto", b"")), _host(values.get(b"host", b"")), element)


def _count_vouched(hops: Iterable[_Hop], is_trusted: Callable[[str], bool]) -> int:
    """Return how many hops from the right were written by trusted proxies: up to the first that is none itself."""
    count = 0
    for hop in hops:
        count += 1
        if hop.address is None or not is_trusted(hop.address):
            break
    return count


# -- single values


def _address(text: bytes, *, is_bracketed: bool) -> str | None:
    """Return an address in its usual form, an IPv4-mapped one as the IPv4 one that it is; None where it is none."""
    if is_bracketed and b":" not in text:
        return None
    try:
        address = ip_address(text.decode("ascii"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _scheme(value: bytes) -> bytes:
    return value.lower() if _SCHEME.fullmatch(value) else b""


def _host(value: bytes) -> bytes:
    try:
        check_authority(value)
    except Malformed:
        return b""
    return value


def _last_scheme(fields: Fields) -> bytes:
    """Return the last member of X-Forwarded-Proto, which the peer wrote; empty where it is no scheme."""
    return _scheme(_last_member(fields, b"x-forwarded-proto"))


def _last_host(fields: Fields) -> bytes:
    return _host(_last_member(fields, b"x-forwarded-host"))


def _last_member(fields: Fields, name: bytes) -> bytes:
    values = field_values(fields, name)
    return values[-1].rpartition(b",")[2].strip(b" \t") if values else b""


# -- rendering


def _element(hop: _Hop, is_clients: bool, scheme: bytes, host: bytes) -> bytes:
    """Return a hop as an element: as it was received, or made of a member of X-Forwarded-For."""
    if hop.element:
        return hop.element
    element = b"for=" + _node_of(hop.node)
    if not is_clients:
        return element
    element += b";proto=" + scheme
    return element + b";host=" + _quote(host) if host else element


def _as_xff(hop: _Hop) -> bytes:
    """Return a hop as a member of X-Forwarded-For, which has no word for obfuscated ones."""
    if not hop.element:
        return hop.node
    return hop.address.encode("ascii") if hop.address is not None else b"unknown"


def _node_of(address: bytes) -> bytes:
    """Return an address as a node: an IPv6 one in brackets, and so in quotes (RFC 7239, 6); a zone stays here."""
    bare = address.partition(b"%")[0]
    if bare.count(b":") > 1 and bare[:1] != b"[":
        bare = b"[%b]" % bare
    return _quote(bare)


def _quote(value: bytes) -> bytes:
    """Return a token as it is, anything else as a quoted string."""
    if _IS_TOKEN.fullmatch(value):
        return value
    return b'"%b"' % value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
