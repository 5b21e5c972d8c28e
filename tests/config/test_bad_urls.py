"""Wrong hosts and upstreams, and services that get in each other's way."""

from __future__ import annotations

import pytest

from .samples import Complaints, bad, host, upstream

IN_HOSTS = "5: services[0].hosts[0]: "
IN_UPSTREAM = "6: services[0].upstreams[0].host: "

HOSTS = [
    bad(
        "no scheme",
        host("example.com"),
        IN_HOSTS + '"example.com" has no scheme; write a URL such as "http://example.com"',
    ),
    bad(
        "one slash",
        host("http:/example.com"),
        IN_HOSTS + '"http:/example.com" has no scheme; write a URL such as "http://example.com/"',
    ),
    bad(
        "https",
        host("https://example.com/"),
        IN_HOSTS + "minato does not terminate TLS yet; write http:// and put TLS in front of it",
    ),
    bad("another scheme", host("ftp://example.com/"), IN_HOSTS + 'the scheme "ftp" is not known; it is http or https'),
    bad("a query", host("http://e/?q=1"), IN_HOSTS + "a query cannot be matched; leave out what follows the path"),
    bad("a fragment", host('"http://e/#top"'), IN_HOSTS + "a fragment (#...) is never sent to a server; leave it out"),
    bad(
        "a user, whose password stays out of the log",
        host("http://me:secret@e/"),
        IN_HOSTS + "a user name or password in the URL is not supported; leave out what stands before the @",
    ),
    bad("no name", host("http:///api"), IN_HOSTS + "has no host name"),
    bad("a number", host("5"), IN_HOSTS + '"5" has no scheme; write a URL such as "http://5"'),
    bad("nothing", host(""), IN_HOSTS + "must not be empty"),
    bad("a space", host('"http://a b/"'), IN_HOSTS + '"a b" is not a host name'),
    bad("a space in the path", host('"http://e/a b"'), IN_HOSTS + '"/a b" holds a space; write %20'),
    bad(
        "a newline",
        host('"http://e/\\nX: y"'),
        IN_HOSTS + '"http://e/\\nX: y" holds a control or otherwise unprintable character',
    ),
    bad("a lone percent sign", host("http://e/100%"), IN_HOSTS + '"/100%" holds a % that begins no escape; write %25'),
    bad(
        "dot segments", host("http://e/a/../b"), IN_HOSTS + 'the path holds "." or ".." segments; write it without them'
    ),
    bad(
        "a star inside a label",
        host("http://www*.e.org/"),
        IN_HOSTS + '"www*.e.org": a * stands only as the whole first label, such as "*.example.org"',
    ),
    bad("two stars", host("http://*.*.org/"), IN_HOSTS + '"*.org": a * stands only in hosts, not in an upstream'),
    bad("a dash first", host("http://-e.org/"), IN_HOSTS + '"-e.org" is not a host name'),
    bad("an empty label", host("http://a..org/"), IN_HOSTS + '"a..org" is not a host name'),
    bad(
        "a label too long",
        host(f"http://{'a' * 64}.org/"),
        IN_HOSTS + '"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..." is not a host name',
    ),
    bad(
        "an international label too long",
        host(f"http://{'é' * 64}.org/"),
        IN_HOSTS + f'"{"é" * 60}..." is not a host name',
    ),
    bad(
        "an address out of range",
        host("http://127.0.0.256/"),
        IN_HOSTS + '"127.0.0.256" is neither a host name nor an IPv4 address',
    ),
    bad(
        "an address in hexadecimal",
        host("http://0x7f.1/"),
        IN_HOSTS + '"0x7f.1" is neither a host name nor an IPv4 address',
    ),
    bad(
        "another port",
        host("http://e:80/"),
        IN_HOSTS + "names port 80, but the service listens on 8080; leave the port out",
    ),
    bad(
        "an IPv6 address without brackets",
        host("http://::1/"),
        IN_HOSTS + '"::1" has more than one colon; an IPv6 address stands in brackets: "[::1]:8001"',
    ),
    bad(
        "brackets that do not close",
        host('"http://[::1/"'),
        IN_HOSTS + '"[::1" is not an IPv6 address in brackets, such as "[::1]:8001"',
    ),
    bad("no address in brackets", host('"http://[e]/"'), IN_HOSTS + '"e" is not an IPv6 address'),
    bad(
        "a zone",
        host('"http://[fe80::1%eth0]/"'),
        IN_HOSTS + '"fe80::1%eth0" names a zone, which is not supported; write the address without it',
    ),
]

UPSTREAMS = [
    bad(
        "no scheme",
        upstream("localhost:8001"),
        IN_UPSTREAM + '"localhost:8001" has no scheme; write a URL such as "http://localhost:8001"',
    ),
    bad("a star", upstream("http://*/"), IN_UPSTREAM + '"*": a * stands only in hosts, not in an upstream'),
    bad(
        "a port out of range",
        upstream("http://u:65536"),
        IN_UPSTREAM + 'the port "65536" is not a number from 1 to 65535',
    ),
    bad("port 0", upstream("http://u:0"), IN_UPSTREAM + 'the port "0" is not a number from 1 to 65535'),
    bad(
        "no port after the colon", upstream('"http://u:"'), IN_UPSTREAM + 'the port "" is not a number from 1 to 65535'
    ),
    bad(
        "a port of letters", upstream("http://u:http"), IN_UPSTREAM + 'the port "http" is not a number from 1 to 65535'
    ),
    bad(
        "a user",
        upstream("http://me@u/"),
        IN_UPSTREAM + "a user name or password in the URL is not supported; leave out what stands before the @",
    ),
    bad(
        "a fragment",
        upstream('"http://u/#a"'),
        IN_UPSTREAM + "a fragment (#...) is never sent to a server; leave it out",
    ),
    bad("a space in the query", upstream('"http://u/?a b"'), IN_UPSTREAM + '"a b" holds a space; write %20'),
    bad(
        "a URL as health_uri",
        upstream("http://u", "health_uri: http://u/health"),
        '7: services[0].upstreams[0].health_uri: is a path on the upstream, such as "/health", not a URL: '
        '"http://u/health"',
    ),
    bad(
        "a space in health_uri",
        upstream("http://u", "health_uri: /a b"),
        '7: services[0].upstreams[0].health_uri: "/a b" holds a space; write %20',
    ),
    bad(
        "a fragment in health_uri",
        upstream("http://u", 'health_uri: "/#x"'),
        "7: services[0].upstreams[0].health_uri: a fragment (#...) is never sent to a server; leave it out",
    ),
    bad(
        "an empty health_uri",
        upstream("http://u", "health_uri:"),
        "7: services[0].upstreams[0].health_uri: must not be empty",
    ),
    bad(
        "the same one twice",
        upstream("http://u:80/a/", "weight: 1\n  - host: HTTP://U/a"),
        '8: services[0].upstreams[1].host: "HTTP://U/a" is the same server as services[0].upstreams[0] (line 6); '
        "give it a weight instead",
    ),
]

TWO = """services:
- name: a
  listen_port: 80
  hosts: [http://e/]
  upstreams: [{host: http://u}]
- name: b
  listen_port: 80
  hosts: [http://f/]
  upstreams: [{host: http://u}]
"""
TWO_LISTENING = TWO.replace("name: a", "name: a\n  listen: 0.0.0.0")

TOGETHER = [
    bad(
        "a name taken",
        TWO.replace("name: b", "name: a"),
        '6: services[1].name: "a" is taken by services[0].name (line 2)',
    ),
    bad(
        "a host taken",
        TWO.replace("http://f/", "http://x/, http://E:80"),
        '8: services[1].hosts[1]: "e/" on *:80 is taken by services[0].hosts[0] (line 4)',
    ),
    bad(
        "a host twice in one service",
        TWO.replace("http://f/", "http://f/a, http://f/a/"),
        '8: services[1].hosts[1]: "f/a" on *:80 is taken by services[1].hosts[0] (line 8)',
    ),
    bad(
        "all addresses beside 0.0.0.0",
        TWO_LISTENING,
        "8: services[1].listen_port: *:80 overlaps the address of services[0] (line 4); "
        "leave out listen in both, or give both the same",
    ),
    bad(
        "all addresses beside ::",
        TWO.replace("name: b", "name: b\n  listen: '::'"),
        "8: services[1].listen: [::]:80 overlaps the address of services[0] (line 3); "
        "leave out listen in both, or give both the same",
    ),
    bad(
        "the PROXY protocol in the first of two",
        TWO.replace("name: a", "name: a\n  proxy_protocol: true"),
        "8: services[1].proxy_protocol: is false on *:80, but true by services[0].proxy_protocol (line 3); "
        "services on one address must agree",
    ),
    bad(
        "the PROXY protocol in the second of two",
        TWO.replace("name: b", "name: b\n  proxy_protocol: true"),
        "7: services[1].proxy_protocol: is true on *:80, but false by services[0].listen_port (line 3); "
        "services on one address must agree",
    ),
    bad(
        "a wrong value for the PROXY protocol in one of two",
        TWO.replace("name: a", "name: a\n  proxy_protocol: v2").replace("name: b", "name: b\n  proxy_protocol: true"),
        "3: services[0].proxy_protocol: expected true or false, got v2",
    ),
]


@pytest.mark.parametrize(("text", "lines"), HOSTS + UPSTREAMS + TOGETHER)
def test_each_wrong_url_is_reported_with_line_and_path(text: str, lines: list[str], complaints: Complaints) -> None:
    assert complaints(text) == lines
