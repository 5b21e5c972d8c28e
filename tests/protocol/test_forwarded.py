"""Claims of trusted proxies: who the client is, what goes on to the upstream, and what nobody can forge."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.config.model import ClientField
from minato.protocol.fields import Fields, field_values, make_block
from minato.protocol.forwarded import MAX_CHAIN_BYTES, MAX_HOPS, Claims, read_claims, render_element
from minato.protocol.message import Framing, RequestHead

PEER = "10.0.0.9"
TRUSTED = ip_network("10.0.0.0/8"), ip_network("fd00::/8")
XFF, RFC_7239 = ClientField.X_FORWARDED_FOR, ClientField.FORWARDED


def is_trusted(address: str) -> bool:
    return any(ip_address(address) in network for network in TRUSTED)


def read(fields: Fields, believe: ClientField = XFF, *, peer: str = PEER, sends: bool = False) -> Claims:
    block = make_block([(b"host", b"Own.example:80"), *fields])
    head = RequestHead(b"GET", b"/", 11, block, Framing.NONE, 0, b"own.example:80", b"/", True)
    return read_claims(head, peer, is_trusted, believe, sends_forwarded=sends)


def xff(*lines: bytes, **options: bool) -> Claims:
    return read([(b"x-forwarded-for", line) for line in lines], **options)


def rfc_7239(*lines: bytes) -> Claims:
    return read([(b"forwarded", line) for line in lines], RFC_7239)


def told(claims: Claims, name: bytes) -> bytes | None:
    values = field_values(claims.fields, name)
    assert len(values) < 2
    return values[0] if values else None


# -- who the client is

XFF_CLIENTS = [
    ((), PEER),
    ((b"",), PEER),
    ((b"192.0.2.1",), "192.0.2.1"),
    ((b"10.0.0.1",), "10.0.0.1"),
    ((b"192.0.2.1, 10.0.0.1",), "192.0.2.1"),
    ((b"192.0.2.1", b"10.0.0.1"), "192.0.2.1"),
    ((b"192.0.2.1,10.0.0.1,,\t",), "192.0.2.1"),
    ((b"6.6.6.6, 192.0.2.1, 10.0.0.1, fd00::1",), "192.0.2.1"),
    ((b"10.9.9.9, 192.0.2.1",), "192.0.2.1"),
    ((b"10.0.0.1, 10.0.0.2",), "10.0.0.1"),
    ((b"2001:DB8:0::1",), "2001:db8::1"),
    ((b"[2001:db8::1]",), "2001:db8::1"),
    ((b"[2001:db8::1]:443, 10.0.0.1:80",), "2001:db8::1"),
    ((b"192.0.2.1:1234",), "192.0.2.1"),
    ((b"::ffff:192.0.2.1",), "192.0.2.1"),
    ((b"::ffff:10.0.0.1",), "10.0.0.1"),
    ((b"192.0.2.1, unknown, 10.0.0.1",), "10.0.0.1"),
    ((b"192.0.2.1, rubbish, 10.0.0.1",), "10.0.0.1"),
    ((b"rubbish, 192.0.2.1",), "192.0.2.1"),
    ((b"192.0.2.1, rubbish",), PEER),
]


@pytest.mark.parametrize(("lines", "client"), XFF_CLIENTS)
def test_the_client_is_the_right_most_that_is_no_trusted_proxy(lines: tuple[bytes, ...], client: str) -> None:
    assert xff(*lines).client == client


@pytest.mark.parametrize(
    "member",
    [
        *[b"192.0.2.256", b"192.0.2", b"192.0.02.1", b"0x7f.1.1.1", b"2001:db8", b":::", b"[2001:db8::1", b"::1]"],
        *[b"[192.0.2.1]", b"fe80::1%eth0", b"localhost", b"_hidden", b"192.0.2.1 10.0.0.1", b'"192.0.2.1"', b"\xff"],
        *[b"192.0.2.1:x", b"192.0.2.1:123456", b"for=192.0.2.1", b"192.0.2.1;", b"1" * 5000],
    ],
)
def test_what_is_no_address_ends_the_chain_and_does_not_go_on(member: bytes) -> None:
    claims = xff(b"6.6.6.6, " + member + b", 10.0.0.1")
    assert claims.client == "10.0.0.1"
    assert told(claims, b"x-forwarded-for") == b"10.0.0.1, 10.0.0.9"


RFC_7239_CLIENTS = [
    ((b"for=192.0.2.1",), "192.0.2.1"),
    ((b'For="192.0.2.1:1234"',), "192.0.2.1"),
    ((b'for="[2001:db8::1]"',), "2001:db8::1"),
    ((b'FOR="[2001:DB8::1]:_port"',), "2001:db8::1"),
    ((b"for=192.0.2.1;proto=https;by=_x;host=h;other=1, for=10.0.0.1",), "192.0.2.1"),
    ((b"proto=https;for=192.0.2.1", b"for=10.0.0.1;"), "192.0.2.1"),
    ((b'for=6.6.6.6, for=192.0.2.1;ext="a, for=9.9.9.9", for=10.0.0.1',), "192.0.2.1"),
    ((b'for="192\\.0.2.1"',), "192.0.2.1"),
    ((b"for=_hidden, for=10.0.0.1",), "10.0.0.1"),
    ((b"for=192.0.2.1, for=unknown, for=10.0.0.1",), "10.0.0.1"),
    ((b"for=_hidden",), PEER),
    # A quote that the client left open does not swallow what the proxy appended.
    ((b'for="evil, for=192.0.2.1',), "192.0.2.1"),
    ((b'x="a, for=9.9.9.9", for=192.0.2.1',), "192.0.2.1"),
    ((b'for=6.6.6.6;x="', b'for="[2001:db8::1]"'), "2001:db8::1"),
]
RFC_7239_MALFORMED = [
    *[b"for=192.0.2.256", b"for=2001:db8::1", b"for=[2001:db8::1]", b'for="2001:db8::1"', b'for="[192.0.2.1]"'],
    *[b"for = 192.0.2.1", b"for= 192.0.2.1", b"for=192.0.2.1 ;proto=http", b"for=192.0.2.1; proto=http", b"192.0.2.1"],
    *[b"proto=https", b"for=", b'for=""', b"for=192.0.2.1;for=6.6.6.6", b"for=a;for=a", b"for=192.0.2.1;FOR=6.6.6.6"],
    *[b'for="192.0.2.1', b'for=192.0.2.1"', b'for="192.0.2.1"x', b'for="a"b"', b"for=192.0.2.1:80", b"for=\xff"],
]


@pytest.mark.parametrize(("lines", "client"), RFC_7239_CLIENTS)
def test_forwarded_names_the_client_as_x_forwarded_for_does(lines: tuple[bytes, ...], client: str) -> None:
    assert rfc_7239(*lines).client == client


@pytest.mark.parametrize("element", RFC_7239_MALFORMED)
def test_a_malformed_element_ends_the_chain_and_does_not_go_on(element: bytes) -> None:
    claims = rfc_7239(b"for=6.6.6.6, " + element + b", for=10.0.0.1;proto=https")
    assert claims.client == "10.0.0.1"
    assert told(claims, b"forwarded") == b'for=10.0.0.1;proto=https, for=10.0.0.9;proto=http;host="Own.example:80"'
    assert told(claims, b"x-forwarded-for") == b"10.0.0.1, 10.0.0.9"


CLIENT_TEXT = st.text(st.sampled_from('for=6.,;:"\\[] \tunknow_x%\xff'), max_size=60).map(
    lambda text: text.encode("latin-1")
)


@given(CLIENT_TEXT, st.sampled_from([b"192.0.2.1", b"2001:db8::1"]), st.booleans())
def test_nothing_that_a_client_sends_changes_what_a_proxy_appended(sent: bytes, client: bytes, own_line: bool) -> None:
    element = render_element(client, b"h:1")
    for field, appended, reader in ((b"forwarded", element, RFC_7239), (b"x-forwarded-for", client, XFF)):
        lines = [sent, appended] if own_line else [sent + b", " + appended]
        claims = read([(field, line) for line in lines], reader)
        assert claims.client == client.decode("ascii")
        chain = told(claims, field)
        assert chain is not None
        assert appended + b", " in chain
    assert xff(sent.replace(b",", b"")).client != "10.0.0.1"


@given(st.binary(max_size=200), st.sampled_from([XFF, RFC_7239]))
def test_whatever_is_sent_the_client_is_an_address_and_the_fields_are_well_formed(
    raw: bytes, believe: ClientField
) -> None:
    value = bytes(byte for byte in raw if byte in b"\t" or byte >= 0x20)
    fields = [
        (b"forwarded", value),
        (b"x-forwarded-for", value),
        (b"x-forwarded-proto", value),
        (b"x-forwarded-host", value),
    ]
    claims = read(fields, believe, sends=True)
    ip_address(claims.client)
    again = rfc_7239(*field_values(claims.fields, b"forwarded"))
    # Read by the next one, who trusts this one: the same client.
    assert again.client == claims.client
    assert claims.scheme.isascii()
    assert claims.scheme.isalnum() or claims.scheme.translate(None, b"+.-").isalnum()


# -- what goes on


def test_a_chain_is_kept_and_extended() -> None:
    claims = xff(b"6.6.6.6, 192.0.2.1:7", b"[2001:db8::1]")
    assert told(claims, b"x-forwarded-for") == b"6.6.6.6, 192.0.2.1:7, [2001:db8::1], 10.0.0.9"
    assert told(claims, b"forwarded") is None


def test_forwarded_is_made_of_what_is_believed_where_it_is_to_be_sent() -> None:
    fields: Fields = [
        (b"x-forwarded-for", b"6.6.6.6, 2001:db8::1, 10.0.0.1:7"),
        (b"x-forwarded-proto", b"HTTPS"),
        (b"x-forwarded-host", b"shop.example"),
        (b"forwarded", b"for=7.7.7.7;proto=ftp"),
    ]
    assert told(read(fields, sends=True), b"forwarded") == (
        b'for=6.6.6.6, for="[2001:db8::1]";proto=https;host=shop.example, for="10.0.0.1:7", '
        b'for=10.0.0.9;proto=http;host="Own.example:80"'
    )


def test_forwarded_goes_on_where_it_is_believed_and_x_forwarded_fields_follow_it() -> None:
    chain = (
        b'for=6.6.6.6;host=evil, for="_gw:1";host="Shop.example:8443";proto=HTTPS, For=10.0.0.1;proto=http;host=inner'
    )
    claims = read(
        [(b"forwarded", chain), *((b"x-forwarded-" + name, b"evil") for name in (b"for", b"proto", b"host"))], RFC_7239
    )
    assert told(claims, b"forwarded") == chain + b', for=10.0.0.9;proto=http;host="Own.example:80"'
    assert told(claims, b"x-forwarded-for") == b"6.6.6.6, unknown, 10.0.0.1, 10.0.0.9"
    assert (claims.scheme, claims.host) == (b"https", b"Shop.example:8443")
    assert told(claims, b"x-forwarded-proto") == b"https"
    assert told(claims, b"x-forwarded-host") == b"Shop.example:8443"
    assert not claims.passes(b"x-forwarded-port")


def test_a_proxy_that_is_to_send_forwarded_and_does_not_is_the_client() -> None:
    claims = read([(b"x-forwarded-for", b"6.6.6.6")], RFC_7239)
    assert (claims.client, told(claims, b"x-forwarded-for"), told(claims, b"forwarded")) == (PEER, b"10.0.0.9", None)


@pytest.mark.parametrize(
    ("value", "scheme"),
    [
        *[(b"https", b"https"), (b"HTTPS", b"https"), (b"http, https", b"https"), (b"https,http", b"http")],
        *[(b"", b"http"), (b"https://", b"http"), (b"a b", b"http"), (b"x" * 33, b"http"), (b"https,", b"http")],
    ],
)
def test_the_scheme_is_the_last_that_was_named(value: bytes, scheme: bytes) -> None:
    claims = read([(b"x-forwarded-proto", b"ftp"), (b"x-forwarded-proto", value)])
    assert (claims.scheme, told(claims, b"x-forwarded-proto")) == (scheme, scheme)


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"shop.example:8443", None),
        (b"evil, [::1]:80", b"[::1]:80"),
        *((bad, b"Own.example:80") for bad in (b"", b"a b", b"a/b", b"a:b", b"a@b")),
    ],
)
def test_the_host_is_the_last_that_was_named_where_it_is_one(value: bytes, host: bytes | None) -> None:
    claims = read([(b"x-forwarded-host", value)])
    assert (claims.host, told(claims, b"x-forwarded-host")) == (host or value, host or value)


def test_the_real_ip_is_that_of_the_client_and_sent_only_where_a_proxy_does() -> None:
    fields: Fields = [(b"x-forwarded-for", b"192.0.2.1"), (b"x-real-ip", b"6.6.6.6")]
    assert told(read(fields), b"x-real-ip") == b"192.0.2.1"
    assert told(read(fields[:1]), b"x-real-ip") is None


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        (b"x-forwarded-port", True),
        (b"x_forwarded_port", False),
        (b"x-forwarded_for", False),
        (b"forwarded", False),
        (b"x-real-ip", False),
    ],
)
def test_other_fields_of_a_trusted_proxy_pass_unless_nobody_but_a_client_writes_them(name: bytes, passes: bool) -> None:
    assert xff().passes(name) is passes


@pytest.mark.parametrize(("field", "member"), [(b"x-forwarded-for", b"10.1.1.1"), (b"forwarded", b"for=10.1.1.1")])
def test_a_chain_is_read_to_a_bound(field: bytes, member: bytes) -> None:
    believe = XFF if field == b"x-forwarded-for" else RFC_7239
    for count, separator in ((1000, b", "), (2 * MAX_HOPS, b",")):
        claims = read([(field, separator.join([b"1" + member] + [member] * count))], believe)
        chain = told(claims, field)
        assert chain is not None
        assert chain.count(member) == MAX_HOPS
        assert claims.client == "10.1.1.1"
    quoted = b'for=1.1.1.1;x="' + b"," * MAX_CHAIN_BYTES + b'", for=192.0.2.1'
    assert read([(b"forwarded", quoted)], RFC_7239).client == "192.0.2.1"


@pytest.mark.parametrize(("beyond", "client"), [(0, "192.0.2.1"), (1, "10.0.0.1")])
def test_a_member_that_is_cut_by_the_bound_is_not_taken_for_another(beyond: int, client: str) -> None:
    front, back = b"192.0.2.1", b"10.0.0.1"
    filler = b"," * (MAX_CHAIN_BYTES + beyond - len(front + back))
    assert xff(front + filler + back).client == client


@pytest.mark.parametrize(
    ("peer", "host", "element"),
    [
        (b"192.0.2.1", b"h", b"for=192.0.2.1;proto=http;host=h"),
        (b"2001:db8::1", b"[::1]:80", b'for="[2001:db8::1]";proto=http;host="[::1]:80"'),
        (b"fe80::1%eth0", b"", b'for="[fe80::1]";proto=http'),
    ],
)
def test_minatos_own_element_quotes_what_is_no_token(peer: bytes, host: bytes, element: bytes) -> None:
    assert render_element(peer, host) == element
