"""Who may ask the admin API anything: nobody whom a foreign web page sent.

There is no password: who reaches the address may purge. But a browser on a machine that reaches it must not do that for
a page of somebody else's. Three ways lead there, and each is closed:

- A page of another origin posts a form or fetches: browsers say so in Origin and Sec-Fetch-Site. What must be JSON
  (minato.control.admin.routes) cannot be posted across origins without asking first, which is answered with 405.
- DNS rebinding makes the page's own name resolve to the address, so that the request is of the same origin. It still
  carries that name in Host, where only an IP address or "localhost" is taken: neither can be rebound.
"""

from __future__ import annotations

from ipaddress import ip_address

from minato.control.admin.answer import refuse
from minato.protocol.message import RequestHead, field_values

_OWN_SITES = frozenset([b"same-origin", b"none"])


def check_sender(head: RequestHead) -> None:
    """Let a request pass, or not.

    Raises:
        Refused: 421 for a Host that is a name, 403 for a request that a page of another origin made.
    """
    if head.host and not _is_address(head.host):
        raise refuse(421, "the Host field must be an IP address or localhost: a name could be anybody's")
    origins = field_values(head.block.fields, b"origin")
    sites = field_values(head.block.fields, b"sec-fetch-site")
    if any(origin != b"http://" + head.host for origin in origins) or any(site not in _OWN_SITES for site in sites):
        raise refuse(403, "a page of another origin may not ask for this")


def _is_address(authority: bytes) -> bool:
    """Tell whether ``host[:port]`` is an IP address or localhost."""
    text = authority.decode("ascii")
    host = text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
    if host.removesuffix(".") == "localhost":
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
