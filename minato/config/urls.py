"""The URLs of a config: hosts entries, upstreams, health_uri and listen addresses, checked and in one normal form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address

from minato.config.model import HostRule, ListenAddress, Upstream
from minato.config.nodes import Scalar
from minato.config.problems import BadValue, shown
from minato.config.values import printable_text

MAX_PORT = 65_535

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_HOST_CHARS = 253
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?"
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)  # with "_": containers and SRV names have it
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class _Url:
    """A URL in its parts. ``host``: normal form, without brackets; ``port`` None where none is written."""

    scheme: str
    host: str
    port: int | None
    path: str
    query: str


def parse_host_rule(scalar: Scalar) -> tuple[HostRule, int | None]:
    """Return the rule of one ``hosts`` entry, such as ``http://*.example.org/api``, and the port if it names one."""
    url = _split(printable_text(scalar), example="http://example.com/", allow_wildcard=True)
    if url.scheme == "https":
        raise BadValue("minato does not terminate TLS yet; write http:// and put TLS in front of it")
    if url.query:
        raise BadValue("a query cannot be matched; leave out what follows the path")
    _refuse_dot_segments(url.path)
    host = f"[{url.host}]" if ":" in url.host else url.host
    return HostRule(host.removesuffix("."), url.path.rstrip("/") or "/"), url.port


def parse_path_prefix(scalar: Scalar) -> str:
    """Return a path prefix such as ``/account``, in the form that `parse_host_rule` gives the paths of hosts."""
    text = printable_text(scalar)
    if "://" in text:
        raise BadValue(f'is a path, such as "/account", not a URL: {shown(text)}')
    if not text.startswith("/"):
        raise BadValue(f"{shown(text)} does not begin with a slash; write {shown('/' + text)}")
    if "?" in text or "#" in text:
        raise BadValue("a query cannot be matched; leave out what follows the path")
    if "*" in text:
        meant = text.partition("*")[0].rstrip("/") or "/"
        raise BadValue(f"{shown(text)}: a path takes all that is below it, without a *; write {shown(meant)}")
    _refuse_dot_segments(text)
    return _wire_form(text).rstrip("/") or "/"


def parse_upstream(scalar: Scalar) -> Upstream:
    """Return the upstream of a ``host`` value, such as ``http://localhost:8001/base``, the rest by default."""
    text = printable_text(scalar)
    url = _split(text, example="http://localhost:8001", allow_wildcard=False)
    port = url.port or _DEFAULT_PORTS[url.scheme]
    return Upstream(text, url.scheme, url.host, port, path=url.path.rstrip("/"), query=url.query)


def parse_health_uri(scalar: Scalar) -> str:
    """Return the origin-form target of a health check; a missing leading slash is added, as the original does."""
    text = printable_text(scalar)
    if "://" in text:
        raise BadValue(f'is a path on the upstream, such as "/health", not a URL: {shown(text)}')
    if "#" in text:
        raise BadValue("a fragment (#...) is never sent to a server; leave it out")
    return _wire_form(text if text.startswith("/") else "/" + text)


def parse_listen(scalar: Scalar) -> str:
    """Return the IP address to listen on, in its shortest form and without brackets."""
    text = printable_text(scalar)
    try:
        address = ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
    except ValueError:
        address = None
    if address is None or "%" in text:
        raise BadValue(
            f'{shown(text)} is not an IP address; write one such as "127.0.0.1" (the port goes to listen_port)'
        )
    return str(address)


def parse_admin_listen(scalar: Scalar) -> ListenAddress | None:
    """Return the address and port of a value such as ``127.0.0.1:9180`` or ``[::1]:9180``; None for ``off``."""
    text = printable_text(scalar)
    if text == "off":
        return None
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ip_address(bare)
    except ValueError:
        address = None
    if not colon or address is None or "%" in host or (address.version == 6) != (bare != host):
        raise BadValue(
            f'expected "off" or an IP address with a port, such as "127.0.0.1:9180" or "[::1]:9180", got {shown(text)}'
        )
    return ListenAddress(str(address), _port(port))


def _refuse_dot_segments(path: str) -> None:
    if any(segment in {".", ".."} for segment in path.split("/")):
        raise BadValue('the path holds "." or ".." segments; write it without them')


def _split(text: str, *, example: str, allow_wildcard: bool) -> _Url:
    """Return the parts of an http or https URL, each in normal form."""
    match = _URL.fullmatch(text)
    if not match:
        # "example.com/api" gets its scheme; of "http:/example.com" and the like nobody knows what was meant.
        meant = example if ":/" in text or text.startswith("/") else f"http://{text}"
        raise BadValue(f"{shown(text)} has no scheme; write a URL such as {shown(meant)}")
    scheme = match["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        raise BadValue(f"the scheme {shown(scheme)} is not known; it is http or https")
    if "@" in match["authority"]:
        raise BadValue("a user name or password in the URL is not supported; leave out what stands before the @")
    if match["fragment"]:
        raise BadValue("a fragment (#...) is never sent to a server; leave it out")
    host, port = _split_authority(match["authority"], allow_wildcard)
    return _Url(scheme, host, port, _wire_form(match["path"]), _wire_form(match["query"] or ""))


def _split_authority(authority: str, allow_wildcard: bool) -> tuple[str, int | None]:
    if authority.startswith("["):
        inside, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise BadValue(f'{shown(authority)} is not an IPv6 address in brackets, such as "[::1]:8001"')
        host, port_text = _ipv6(inside), rest[1:] if rest else None
    elif authority.count(":") > 1:
        raise BadValue(f'{shown(authority)} has more than one colon; an IPv6 address stands in brackets: "[::1]:8001"')
    else:
        name, colon, after = authority.partition(":")
        host, port_text = _host_name(name, allow_wildcard), after if colon else None
    return host, None if port_text is None else _port(port_text)


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= MAX_PORT:
        raise BadValue(f"the port {shown(text)} is not a number from 1 to {MAX_PORT}")
    return int(text)


def _ipv6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise BadValue(f"{shown(text)} is not an IPv6 address") from None
    if "%" in text:
        raise BadValue(f"{shown(text)} names a zone, which is not supported; write the address without it")
    return str(address)


def _host_name(name: str, allow_wildcard: bool) -> str:
    """Return a DNS name or IPv4 address in lower case, international names in their ASCII form."""
    if allow_wildcard and name == "*":
        return name
    if allow_wildcard and name.startswith("*."):
        return "*." + _host_name(name[2:], allow_wildcard=False)
    if not name:
        raise BadValue("has no host name")
    if "*" in name:
        place = (
            'as the whole first label, such as "*.example.org"' if allow_wildcard else "in hosts, not in an upstream"
        )
        raise BadValue(f"{shown(name)}: a * stands only {place}")
    host = _to_ascii(name)
    labels = host.removesuffix(".").split(".")
    if len(host) > _MAX_HOST_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadValue(f"{shown(name)} is not a host name")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        try:
            return str(IPv4Address(host))
        except AddressValueError:
            raise BadValue(f"{shown(name)} is neither a host name nor an IPv4 address") from None
    return host


def _to_ascii(name: str) -> str:
    if name.isascii():
        return name.lower()
    try:
        # The codec is quadratic in the length of a label.
        return name[: _MAX_HOST_CHARS + 1].encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise BadValue(f"{shown(name)} is not a host name") from None


def _wire_form(target: str) -> str:
    """Return a path or query fit for a request line: printable ASCII without spaces, escapes left as they are."""
    if any(char.isspace() for char in target):
        raise BadValue(f"{shown(target)} holds a space; write %20")
    if _BAD_PERCENT.search(target):
        raise BadValue(f"{shown(target)} holds a % that begins no escape; write %25")
    if target.isascii():
        return target
    # RFC 3986, 2.5: characters beyond ASCII are encoded as UTF-8, then percent-encoded.
    return "".join(char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode()) for char in target)
