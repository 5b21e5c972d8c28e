"""PROXY protocol headers: whole, byte by byte, with bytes behind; what is malformed, as early as it can be told."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.protocol.crc32c import crc32c
from minato.protocol.proxy_protocol import (
    MAX_V1_BYTES,
    MAX_V2_BYTES,
    SIGNATURE,
    Endpoints,
    MalformedProxyHeader,
    ProxyHeader,
    read_proxy_header,
    render_proxy_header,
)

SOURCE_4, TARGET_4 = bytes([192, 0, 2, 1]), bytes([198, 51, 100, 9])
SOURCE_6, TARGET_6 = ip_address("2001:db8::1").packed, ip_address("2001:db8::2").packed
INET = SOURCE_4 + TARGET_4 + struct.pack("!HH", 1234, 80)
INET6 = SOURCE_6 + TARGET_6 + struct.pack("!HH", 1234, 80)
V4 = Endpoints("192.0.2.1", 1234, "198.51.100.9", 80)
V6 = Endpoints("2001:db8::1", 1234, "2001:db8::2", 80)
FAMILIES = {0x11: INET, 0x21: INET6, 0x31: bytes(216)}


def version_2(kind: int, block: bytes, *, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes([command, kind]) + struct.pack("!H", len(block)) + block


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def with_checksum(kind: int, block: bytes, wrong: int = 0) -> bytes:
    header = version_2(kind, block + tlv(3, bytes(4)))
    return header[:-4] + struct.pack("!I", crc32c(header) ^ wrong)


GOOD = {
    "TCP4": (b"PROXY TCP4 192.0.2.1 198.51.100.9 1234 80\r\n", V4),
    "TCP6": (b"PROXY TCP6 2001:db8::1 2001:DB8::2 1234 80\r\n", V6),
    "TCP4, ports at their bounds": (
        b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
        Endpoints("0.0.0.0", 0, "255.255.255.255", 65_535),
    ),
    "TCP6, an IPv4 client": (
        b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6409 1234 80\r\n",
        Endpoints("192.0.2.1", 1234, "198.51.100.9", 80),
    ),
    "TCP6, the longest": (
        b"PROXY TCP6 " + (b":".join([b"ffff"] * 8) + b" ") * 2 + b"65535 65535\r\n",
        Endpoints(*(":".join(["ffff"] * 8), 65_535) * 2),
    ),
    "UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "UNKNOWN, anything behind": (b"PROXY UNKNOWN ffff::1 whatever 65535\r\n", None),
    "UNKNOWN, the longest": (b"PROXY UNKNOWN " + b"x" * (MAX_V1_BYTES - 16) + b"\r\n", None),
    "v2 IPv4": (version_2(0x11, INET), V4),
    "v2 IPv6": (version_2(0x21, INET6), V6),
    "v2 IPv6, an IPv4 client": (
        version_2(0x21, bytes(10) + b"\xff\xff" + SOURCE_4 + bytes(10) + b"\xff\xff" + TARGET_4 + INET[8:]),
        V4,
    ),
    "v2 UNIX": (version_2(0x31, bytes(216)), None),
    "v2 UNSPEC": (version_2(0x00, b""), None),
    "v2 UNSPEC, anything behind": (version_2(0x00, b"whatever"), None),
    "v2 IPv4, no transport": (version_2(0x10, INET), None),
    "v2 LOCAL": (version_2(0x00, b"", command=0x20), None),
    "v2 LOCAL, its block ignored": (version_2(0xFF, b"whatever", command=0x20), None),
    "v2 TLVs": (version_2(0x11, INET + tlv(1, b"h2") + tlv(0xEA, b"") + tlv(4, bytes(900))), V4),
    "v2 checksum": (with_checksum(0x11, INET + tlv(5, b"id")), V4),
    "v2 checksum among TLVs": (with_checksum(0x21, INET6), V6),
    "v2, the longest": (version_2(0x11, INET + tlv(4, bytes(MAX_V2_BYTES - 16 - 12 - 3))), V4),
}


@pytest.mark.parametrize(("header", "endpoints"), GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("behind", [b"", b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"PROXY UNKNOWN\r\n", SIGNATURE])
def test_a_header_is_read_up_to_its_end_and_no_further(
    header: bytes, endpoints: Endpoints | None, behind: bytes
) -> None:
    assert read_proxy_header(header + behind) == ProxyHeader(len(header), endpoints)


@pytest.mark.parametrize(("header", "endpoints"), GOOD.values(), ids=GOOD)
def test_every_beginning_of_a_header_may_become_one(header: bytes, endpoints: Endpoints | None) -> None:
    for size in range(len(header)):
        assert read_proxy_header(header[:size]) is None, size


# Each with how many of its bytes may still become a header: one more, and it is refused at once.
BAD = {
    "a request": (b"GET / HTTP/1.1\r\n\r\n", 0),
    "a POST": (b"POST / HTTP/1.1\r\n\r\n", 1),
    "a PROPFIND": (b"PROPFIND / HTTP/1.1\r\n\r\n", 3),
    "an empty line in front": (b"\r\nGET / HTTP/1.1\r\n\r\n", 2),
    "TLS": (b"\x16\x03\x01", 0),
    "in lower case": (b"proxy TCP4 192.0.2.1 198.51.100.9 1234 80\r\n", 0),
    "v1 without a space": (b"PROXY\r\n", 5),
    "v1 bare LF": (b"PROXY TCP4 192.0.2.1 198.51.100.9 1234 80\n", 41),
    "v1 UNKNOWN with bare LF": (b"PROXY UNKNOWN\n", 13),
    "v1 too long": (b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n", MAX_V1_BYTES - 1),
    "v1 one byte too long": (b"PROXY UNKNOWN " + b"x" * (MAX_V1_BYTES - 15) + b"\r\n", MAX_V1_BYTES - 1),
    "v2 of version 1": (version_2(0x11, INET, command=0x11), 12),
    "v2 of version 3": (version_2(0x11, INET, command=0x31), 12),
    "v2 unknown command": (version_2(0x11, INET, command=0x22), 12),
    "v2 too long": (version_2(0x11, bytes(MAX_V2_BYTES - 15)), 15),
    "v2 far too long": (version_2(0x11, b"")[:-2] + b"\xff\xff", 15),
}
BAD_LINES = [
    b"PROXY  TCP4 192.0.2.1 198.51.100.9 1234 80",
    b"PROXY TCP4  192.0.2.1 198.51.100.9 1234 80",
    b"PROXY TCP4 192.0.2.1 198.51.100.9 1234 80 ",
    b"PROXY TCP4 192.0.2.1 198.51.100.9 1234",
    b"PROXY TCP4 192.0.2.1 198.51.100.9 1234 80 81",
    b"PROXY TCP4 192.0.2.1\t198.51.100.9 1234 80",
    b"PROXY TCP4 192.0.2.1 198.51.100.9 01234 80",
    b"PROXY TCP4 192.0.2.1 198.51.100.9 1234 00",
    b"PROXY TCP4 192.0.2.1 198.51.100.9 +1234 80",
    b"PROXY TCP4 192.0.2.1 198.51.100.9 -1 80",
    b"PROXY TCP4 192.0.2.1 198.51.100.9 65536 80",
    b"PROXY TCP4 192.0.2.1 198.51.100.9 1234 99999",
    b"PROXY TCP4 192.0.2.1 198.51.100.9 1_2 80",
    b"PROXY TCP4 192.0.2.1 198.51.100.9 \xd9\xa1 80",
    b"PROXY TCP4 192.0.2.01 198.51.100.9 1234 80",
    b"PROXY TCP4 192.0.2 198.51.100.9 1234 80",
    b"PROXY TCP4 192.0.2.256 198.51.100.9 1234 80",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 1234 80",
    b"PROXY TCP6 192.0.2.1 198.51.100.9 1234 80",
    b"PROXY TCP6 2001:db8::1 198.51.100.9 1234 80",
    b"PROXY TCP6 2001:db8:::1 2001:db8::2 1234 80",
    b"PROXY TCP6 fe80::1%eth0 2001:db8::2 1234 80",
    b"PROXY TCP6 [2001:db8::1] 2001:db8::2 1234 80",
    b"PROXY TCP4 localhost 198.51.100.9 1234 80",
    b"PROXY TCP5 192.0.2.1 198.51.100.9 1234 80",
    b"PROXY UDP4 192.0.2.1 198.51.100.9 1234 80",
    b"PROXY tcp4 192.0.2.1 198.51.100.9 1234 80",
    b"PROXY UNKNOWNX",
    b"PROXY UNKNOWN \x00",
    b"PROXY UNKNOWN \r",
    b"PROXY ",
]
BAD |= {line.decode("latin-1"): (line + b"\r\n", len(line) + 1) for line in BAD_LINES}
BAD_BLOCKS = {
    "v2 IPv4 cut short": version_2(0x11, INET[:-1]),
    "v2 IPv6 cut short": version_2(0x21, INET6[:-1]),
    "v2 UNIX cut short": version_2(0x31, bytes(215)),
    "v2 IPv4 addresses as IPv6": version_2(0x21, INET),
    "v2 empty block": version_2(0x11, b""),
    "v2 datagrams": version_2(0x12, INET),
    "v2 unknown transport": version_2(0x13, INET),
    "v2 unknown family": version_2(0x41, INET),
    "v2 half a TLV": version_2(0x11, INET + b"\x04\x00"),
    "v2 a TLV beyond the end": version_2(0x11, INET + b"\x04\x00\x02x"),
    "v2 wrong checksum": with_checksum(0x11, INET, wrong=1),
    "v2 checksum of three bytes": version_2(0x11, INET + tlv(3, bytes(3))),
    "v2 two checksums": version_2(0x11, INET + tlv(3, bytes(4)) + tlv(3, bytes(4))),
}
BAD |= {name: (header, len(header) - 1) for name, header in BAD_BLOCKS.items()}


@pytest.mark.parametrize(("data", "hope"), BAD.values(), ids=BAD)
def test_what_is_no_header_is_refused_as_soon_as_that_is_certain(data: bytes, hope: int) -> None:
    for size in range(hope + 1):
        assert read_proxy_header(data[:size]) is None, size
    for size in (hope + 1, len(data)):
        with pytest.raises(MalformedProxyHeader):
            read_proxy_header(data[:size])
    with pytest.raises(MalformedProxyHeader):
        read_proxy_header(data + b"GET / HTTP/1.1\r\n\r\n")


ADDRESSES = st.ip_addresses().map(str)
PORTS = st.integers(0, 65_535)


@given(st.sampled_from([1, 2]), st.builds(Endpoints, ADDRESSES, PORTS, ADDRESSES, PORTS))
def test_what_is_rendered_is_read_as_the_same_endpoints(version: int, endpoints: Endpoints) -> None:
    header = render_proxy_header(version, endpoints)
    read = read_proxy_header(header + b"x")
    assert read is not None
    assert read.size_bytes == len(header) <= 107
    assert read.endpoints is not None
    for told, given_address in (
        (read.endpoints.source, endpoints.source),
        (read.endpoints.destination, endpoints.destination),
    ):
        address = ip_address(given_address)
        assert ip_address(told) == (getattr(address, "ipv4_mapped", None) or address)
    assert (read.endpoints.source_port, read.endpoints.destination_port) == (
        endpoints.source_port,
        endpoints.destination_port,
    )


@pytest.mark.parametrize("version", [1, 2])
def test_on_its_own_behalf_a_header_names_nobody(version: int) -> None:
    header = render_proxy_header(version, None)
    assert read_proxy_header(header) == ProxyHeader(len(header), None)
    assert header in (b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x20\x00\x00\x00")


def test_the_bytes_of_rendered_headers_are_those_of_the_specification() -> None:
    assert render_proxy_header(1, V4) == GOOD["TCP4"][0]
    assert render_proxy_header(1, V6) == b"PROXY TCP6 2001:db8::1 2001:db8::2 1234 80\r\n"
    assert render_proxy_header(2, V4) == version_2(0x11, INET)
    assert render_proxy_header(2, V6) == version_2(0x21, INET6)


def test_a_client_of_another_family_than_the_destination_is_mapped() -> None:
    mixed = Endpoints("192.0.2.1", 1234, "2001:db8::2", 80)
    assert render_proxy_header(1, mixed) == b"PROXY TCP6 ::ffff:c000:201 2001:db8::2 1234 80\r\n"


def test_a_zone_stays_on_its_own_machine() -> None:
    zoned = Endpoints("fe80::1%eth0", 1, "fe80::2%eth0", 2)
    assert render_proxy_header(1, zoned) == b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n"
    assert render_proxy_header(2, zoned) == render_proxy_header(2, Endpoints("fe80::1", 1, "fe80::2", 2))


STARTS = st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00"])


@given(STARTS, st.binary(max_size=300))
def test_no_bytes_are_read_in_two_ways(start: bytes, rest: bytes) -> None:
    data, whole = start + rest, None
    for size in range(len(data) + 1):
        try:
            read = read_proxy_header(data[:size])
        except MalformedProxyHeader:
            assert whole is None
            with pytest.raises(MalformedProxyHeader):
                read_proxy_header(data)
            return
        assert whole is None or read == whole
        whole = read
    assert whole is not None or len(data) < MAX_V2_BYTES


@pytest.mark.parametrize(
    ("data", "checksum"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_the_checksum_is_that_of_rfc_3720(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum
