"""Host and the forms of targets: who is asked for, said once (RFC 9112, 3.2; RFC 9110, 4.2 and 7.2)."""

from __future__ import annotations

import pytest

from tests.wire.table import Case, Wire, names, own, refused, request, seen

UNKNOWN = own(b"404 Not Found")


def hosted(host: bytes) -> Case:
    return Case(f"Host {host.decode()}", request(host=host), seen(host=host))


CASES = [
    hosted(b"test.local"),
    hosted(b"TEST.local"),
    hosted(b"test.local:80"),
    hosted(b"test.local:"),
    hosted(b"test.local:65535"),
    Case("Host by any case of its name", b"GET /x HTTP/1.1\r\nhOsT:\ttest.local \r\n\r\n"),
    Case("another host is not served", request(host=b"other.test"), b"", UNKNOWN),
    Case("an IPv4 address is not served", request(host=b"127.0.0.1:8080"), b"", UNKNOWN),
    Case("an IPv6 address is not served", request(host=b"[::1]:8080"), b"", UNKNOWN),
    Case("a reg-name of rare characters is not served", request(host=b"a!$&'()*+,;=~_-.%41"), b"", UNKNOWN),
    refused("no Host", request(host=None)),
    refused("two Hosts", request(b"GET /x", b"Host: test.local")),
    refused("two different Hosts", request(b"GET /x", b"Host: other.test")),
    refused("an empty Host", request(host=b"")),
    refused("an empty second Host", request(b"GET /x", b"Host:")),
    refused("a port alone", request(host=b":80")),
    refused("a port in words", request(host=b"test.local:http")),
    refused("a port over 65535", request(host=b"test.local:65536")),
    refused("a port of six digits", request(host=b"test.local:000080")),
    refused("two ports", request(host=b"test.local:80:80")),
    refused("a path", request(host=b"test.local/x")),
    refused("a query", request(host=b"test.local?x")),
    refused("a fragment", request(host=b"test.local#x")),
    refused("a user", request(host=b"me@test.local")),
    refused("a scheme", request(host=b"http://test.local")),
    refused("a list", request(host=b"test.local, other.test")),
    refused("a space", request(host=b"test local")),
    refused("a tab", request(host=b"test\tlocal")),
    refused("a backslash", request(host=b"test.local\\x")),
    refused("a bad escape", request(host=b"test%4.local")),
    refused("NUL", request(host=b"test.local\0")),
    refused("not ASCII", request(host="tést.local".encode())),
    refused("an IPv6 address without brackets", request(host=b"::1")),
    refused("an open bracket", request(host=b"[::1")),
    refused("nothing in brackets", request(host=b"[]")),
    refused("a name in brackets", request(host=b"[test.local]")),
    refused("an IPv4 address in brackets", request(host=b"[127.0.0.1]")),
    refused("an IPv6 address with too many groups", request(host=b"[1:2:3:4:5:6:7:8:9]")),
    refused("an IPv6 address with two gaps", request(host=b"[1::2::3]")),
    refused("an IPv6 zone", request(host=b"[fe80::1%25eth0]")),
    # Targets.
    Case("absolute-form", request(b"GET http://test.local/x"), seen()),
    Case("absolute-form wins over Host", request(b"GET http://test.local/x", host=b"other.test"), seen()),
    Case(
        "absolute-form keeps its spelling",
        request(b"GET HTTP://Test.LOCAL:80/x?y", host=b"other.test"),
        seen(b"GET /x?y", host=b"Test.LOCAL:80"),
    ),
    Case("absolute-form without a path", request(b"GET http://test.local"), seen(b"GET /")),
    Case("absolute-form with a query alone", request(b"GET http://test.local?q"), seen(b"GET /?q")),
    Case("absolute-form of another host", request(b"GET http://other.test/x"), b"", UNKNOWN),
    Case("a target that looks like an authority", request(b"GET //other.test/x"), seen(b"GET //other.test/x")),
    Case("a target with a URI in it", request(b"GET /http://a/b"), seen(b"GET /http://a/b")),
    Case("characters that browsers leave", request(b"GET /x?a=|^{}[]'"), seen(b"GET /x?a=|^{}[]'")),
    Case("dot segments are left", request(b"GET /a/../b"), seen(b"GET /a/../b")),
    Case("OPTIONS *", request(b"OPTIONS *"), seen(b"OPTIONS *")),
    Case("OPTIONS of an authority is *", request(b"OPTIONS http://test.local"), seen(b"OPTIONS *")),
    Case("OPTIONS of a root is not *", request(b"OPTIONS http://test.local/"), seen(b"OPTIONS /")),
    refused("absolute-form of https", request(b"GET https://test.local/x")),
    refused("absolute-form of another scheme", request(b"GET ftp://test.local/x")),
    refused("absolute-form without a host", request(b"GET http:///x")),
    refused("absolute-form with a user", request(b"GET http://me@test.local/x")),
    refused("absolute-form with a bad port", request(b"GET http://test.local:x/x")),
    refused("absolute-form with one slash", request(b"GET http:/test.local/x")),
    refused("absolute-form without Host", request(b"GET http://test.local/x", host=None)),
    refused("absolute-form with two Hosts", request(b"GET http://test.local/x", b"Host: test.local")),
    refused("absolute-form with an invalid Host", request(b"GET http://test.local/x", host=b"a b")),
    refused("absolute-form with a fragment", request(b"GET http://test.local/x#y")),
    refused("authority-form", request(b"GET test.local:80")),
    refused("a relative path", request(b"GET x")),
    refused("a fragment in the target", request(b"GET /x#y")),
    refused("* with GET", request(b"GET *")),
    refused("* with a query", request(b"OPTIONS *?x")),
    refused("a path above the root", request(b"GET /../x")),
    refused("an ambiguous dot segment", request(b"GET /a/..%2fb")),
]


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_host_and_target(wire: Wire, case: Case) -> None:
    wire.run(case)
