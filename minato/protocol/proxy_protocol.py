"""The PROXY protocol, versions 1 and 2: what a proxy says of a connection in front of its first byte.

Source: "The PROXY protocol, versions 1 & 2" (haproxy.org, doc/proxy-protocol.txt), cited by section.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from minato.protocol.crc32c import crc32c

# Section 2.1: the longest line there is, CRLF and all.
MAX_V1_BYTES: Final = 107
# As nginx: addresses and 4 KiB of TLVs, more than any sender writes.
MAX_V2_BYTES: Final = 4096
MAX_PORT: Final = 65_535

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V1_START: Final = b"PROXY "
# Section 2.1: one space between the parts, ports without leading zeroes; after UNKNOWN the receiver must ignore
# anything up to the CRLF.
_V1_TCP: Final = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})\r\n")
_V1_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: [\x20-\x7e]*)?\r\n")
_V2_HEAD: Final = struct.Struct("!12sBBH")
_TLV: Final = struct.Struct("!BH")

_VERSION_2: Final = 0x20
_LOCAL, _PROXY = 0x0, 0x1
_UNSPEC, _INET, _INET6, _UNIX = 0x0, 0x1, 0x2, 0x3
_STREAM: Final = 0x1
_INET_ADDRESSES: Final = struct.Struct("!4s4sHH")
_INET6_ADDRESSES: Final = struct.Struct("!16s16sHH")
_UNIX_BYTES: Final = 216
_TYPE_CRC32C: Final = 0x03
_CRC_BYTES: Final = 4


class MalformedProxyHeader(Exception):
    """Bytes that are no PROXY protocol header; the message says why, for the log."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """A client's connection as the first proxy saw it: addresses without port, both of one family where sent."""

    source: str
    source_port: int
    destination: str
    destination_port: int


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A header that was read.

    Attributes:
        size_bytes: of the whole header; what is behind it belongs to the connection.
        endpoints: None where it names none (LOCAL, UNKNOWN, a family other than IPv4 and IPv6): then those of the
            connection itself count.
    """

    size_bytes: int
    endpoints: Endpoints | None


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """Return the header that ``data`` begins with, None while it may still become one.

    Raises:
        MalformedProxyHeader: it cannot become one any more, is too long, or its checksum is wrong.
    """
    if data[: len(SIGNATURE)] == SIGNATURE:
        return _read_v2(data)
    if data[: len(_V1_START)] == _V1_START:
        return _read_v1(data)
    if SIGNATURE.startswith(data) or _V1_START.startswith(data):
        return None
    raise MalformedProxyHeader("no PROXY protocol header")


def render_proxy_header(version: int, endpoints: Endpoints | None) -> bytes:
    """Return the header for a connection made on behalf of a client; None: on minato's own (a health check).

    Addresses of two families go as IPv6, the IPv4 one mapped (::ffff:192.0.2.1).
    """
    if endpoints is None:
        return b"PROXY UNKNOWN\r\n" if version == 1 else _V2_HEAD.pack(SIGNATURE, _VERSION_2 | _LOCAL, 0, 0)
    source, destination = _of_one_family(ip_address(endpoints.source), ip_address(endpoints.destination))
    ports = endpoints.source_port, endpoints.destination_port
    if version == 1:
        line = f"PROXY TCP{source.version} {_plain(source)} {_plain(destination)} {ports[0]} {ports[1]}\r\n"
        return line.encode("ascii")
    if isinstance(source, IPv4Address):
        family, addresses = _INET, _INET_ADDRESSES
    else:
        family, addresses = _INET6, _INET6_ADDRESSES
    head = _V2_HEAD.pack(SIGNATURE, _VERSION_2 | _PROXY, family << 4 | _STREAM, addresses.size)
    return head + addresses.pack(source.packed, destination.packed, *ports)


# -- version 1


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\n", 0, MAX_V1_BYTES)
    if end < 0:
        # "The receiver must wait for the CRLF sequence before starting to decode"
        if len(data) >= MAX_V1_BYTES:
            raise MalformedProxyHeader(f"no CRLF within {MAX_V1_BYTES} bytes")
        return None
    line = data[: end + 1]
    if _V1_UNKNOWN.fullmatch(line):
        return ProxyHeader(len(line), None)
    match = _V1_TCP.fullmatch(line)
    if match is None:
        raise MalformedProxyHeader("a malformed line of version 1")
    kind = IPv4Address if match[1] == b"4" else IPv6Address
    try:
        source, destination = (kind(part.decode("ascii")) for part in (match[2], match[3]))
    except ValueError:
        raise MalformedProxyHeader("an invalid address in version 1") from None
    ports = int(match[4]), int(match[5])
    if max(ports) > MAX_PORT:
        raise MalformedProxyHeader("an invalid port in version 1")
    return ProxyHeader(len(line), _endpoints(source, destination, *ports))


# -- version 2


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) > len(SIGNATURE) and data[len(SIGNATURE)] not in (_VERSION_2 | _LOCAL, _VERSION_2 | _PROXY):
        # "other values are unassigned and must not be emitted by senders. Receivers must drop connections presenting
        # unexpected values here."
        raise MalformedProxyHeader("an unknown version or command")
    if len(data) < _V2_HEAD.size:
        return None
    _, version_and_command, kind, length = _V2_HEAD.unpack_from(data)
    size = _V2_HEAD.size + length
    if size > MAX_V2_BYTES:
        raise MalformedProxyHeader(f"more than {MAX_V2_BYTES} bytes in version 2")
    if len(data) < size:
        return None
    if version_and_command == _VERSION_2 | _LOCAL:
        # "the receiver must accept this connection as valid and must use the real connection endpoints and discard the
        # protocol block including the family which is ignored"
        return ProxyHeader(size, None)
    return ProxyHeader(size, _read_v2_block(data[:size], kind >> 4, kind & 0xF))


def _read_v2_block(header: bytes, family: int, transport: int) -> Endpoints | None:
    if family > _UNIX or transport > _STREAM:
        # A datagram (2) does not come over a connection.
        raise MalformedProxyHeader("an unknown family or transport in version 2")
    if _UNSPEC in (family, transport):
        return None  # "the receiver ... should use the real connection endpoints", whatever the block holds
    start = _V2_HEAD.size
    size = {_INET: _INET_ADDRESSES.size, _INET6: _INET6_ADDRESSES.size, _UNIX: _UNIX_BYTES}[family]
    if len(header) < start + size:
        raise MalformedProxyHeader("addresses cut short in version 2")
    _check_tlvs(header, start + size)
    if family == _UNIX:
        return None
    if family == _INET:
        source, destination, *ports = _INET_ADDRESSES.unpack_from(header, start)
        return _endpoints(IPv4Address(source), IPv4Address(destination), *ports)
    source, destination, *ports = _INET6_ADDRESSES.unpack_from(header, start)
    return _endpoints(IPv6Address(source), IPv6Address(destination), *ports)


def _check_tlvs(header: bytes, at: int) -> None:
    """Walk over the TLVs, of which only the checksum is for minato.

    Raises:
        MalformedProxyHeader: one is cut short, or the checksum is wrong: "the connection must be aborted".
    """
    while at < len(header):
        if at + _TLV.size > len(header):
            raise MalformedProxyHeader("a TLV cut short in version 2")
        kind, length = _TLV.unpack_from(header, at)
        at += _TLV.size
        if at + length > len(header):
            raise MalformedProxyHeader("a TLV cut short in version 2")
        if kind == _TYPE_CRC32C:
            _check_crc(header, at, length)
        at += length


def _check_crc(header: bytes, at: int, length: int) -> None:
    if length != _CRC_BYTES:
        raise MalformedProxyHeader("a checksum of a wrong length in version 2")
    # Section 2.2.3: "replace the 32 bits of the checksum field in the received PROXY header with all '0's"
    zeroed = header[:at] + bytes(_CRC_BYTES) + header[at + _CRC_BYTES :]
    if crc32c(zeroed) != int.from_bytes(header[at : at + _CRC_BYTES], "big"):
        raise MalformedProxyHeader("a wrong checksum in version 2")


# -- addresses


def _endpoints(
    source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, source_port: int, destination_port: int
) -> Endpoints:
    return Endpoints(_plain_or_mapped(source), source_port, _plain_or_mapped(destination), destination_port)


def _plain_or_mapped(address: IPv4Address | IPv6Address) -> str:
    """Return an address as sockets give it, an IPv4-mapped one as the IPv4 one that it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _of_one_family(
    source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address
) -> tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address]:
    if source.version == destination.version:
        return source, destination
    return _to_ipv6(source), _to_ipv6(destination)


def _to_ipv6(address: IPv4Address | IPv6Address) -> IPv6Address:
    return address if isinstance(address, IPv6Address) else IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)


def _plain(address: IPv4Address | IPv6Address) -> str:
    """Return an address without a zone, which means nothing on another machine."""
    return str(address).partition("%")[0]
