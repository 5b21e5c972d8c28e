"""One line of the access log: what is known about an exchange, and how it reads as combined and as json."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from minato.config.model import LogFormat

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
# Whatever could end a line or a quoted part, or confuse a terminal, is written as \xHH, as nginx does.
_UNSAFE = re.compile(rb"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_ESCAPES = {bytes([code]): b"\\x%02X" % code for code in range(256)}
_REMEMBERED = 512
_VERSIONS = {10: b"HTTP/1.0", 11: b"HTTP/1.1"}


@dataclass(slots=True)
class AccessEntry:
    """What one exchange tells the access log.

    Attributes:
        client: the client's address, without port.
        method: as sent; empty where no request line could be read.
        target: the request target as sent.
        version: 10 or 11; 0 where no request line could be read.
        status: of the response that was sent or begun; 0 where the client left before there was one.
        body_bytes: body bytes sent to the client.
        referer: the Referer field, or empty.
        user_agent: the User-Agent field, or empty.
        host: the authority the client asked for, or empty.
        duration_s: from the complete request head to the end of the response.
        upstream: ``host:port`` of the upstream that answered or was tried last, or empty.
        cache: how the lookup came out, in the words of Cache-Status, such as ``hit`` or ``uri-miss``, or empty.
        wall_s: seconds since the epoch at the end of the exchange.
        failure: why the exchange failed, or empty.
    """

    client: str
    method: bytes
    target: bytes
    version: int
    status: int
    body_bytes: int
    referer: bytes
    user_agent: bytes
    host: bytes
    duration_s: float
    upstream: str
    cache: str
    wall_s: float
    failure: str = ""


Formatter = Callable[[AccessEntry], bytes]


def make_formatter(log_format: LogFormat) -> Formatter:
    """Return what turns an entry into one line with its line feed."""
    return _format_json if log_format is LogFormat.JSON else CombinedFormatter()


def shorten(entry: AccessEntry, max_field_bytes: int) -> AccessEntry:
    """Return the entry with every part that a client or an upstream decides the length of cut to so many bytes."""
    cut = slice(max_field_bytes)
    return dataclasses.replace(
        entry,
        method=entry.method[cut],
        target=entry.target[cut],
        referer=entry.referer[cut],
        user_agent=entry.user_agent[cut],
        host=entry.host[cut],
        client=entry.client[cut],
        failure=entry.failure[cut],
    )


class CombinedFormatter:
    """The combined format of Apache and nginx: a front, which says who and when, and a tail, which says what."""

    def __init__(self) -> None:
        self._from_s = self._until_s = 0.0
        self._stamp = b""
        self._fronts: dict[str, bytes] = {}  # of this second, by client

    def __call__(self, entry: AccessEntry) -> bytes:
        line = render_request_line(entry.method, entry.target, entry.version)
        tail = render_tail(line, entry.status, entry.body_bytes, render_agents(entry.referer, entry.user_agent))
        return self.front(entry.client, entry.wall_s) + tail

    def front(self, client: str, wall_s: float) -> bytes:
        """Return how the lines of a client begin in that second; rendered once for it."""
        if not self._from_s <= wall_s < self._until_s:
            self._begin_second(int(wall_s))
        front = self._fronts.get(client)
        return front if front is not None else self._add_front(client)

    def _begin_second(self, second: int) -> None:
        self._from_s, self._until_s = second, second + 1
        self._stamp = _render_stamp(second)
        self._fronts.clear()

    def _add_front(self, client: str) -> bytes:
        if len(self._fronts) >= _REMEMBERED:
            self._fronts.clear()
        front = self._fronts[client] = b"%b - - [%b] " % (_escape_client(client), self._stamp)
        return front


def render_request_line(method: bytes, target: bytes, version: int) -> bytes:
    """Return the request line as it is quoted in a combined line; ``-`` where there is no method."""
    if not method:
        return b"-"
    name = _VERSIONS.get(version)
    return _escape(b"%b %b %b" % (method, target, name) if name else b"%b %b" % (method, target))


def render_tail(request_line: bytes, status: int, body_bytes: int, agents: bytes) -> bytes:
    """Return the end of a combined line, of parts that `render_request_line` and `render_agents` made."""
    return b'"%b" %03d %d %b' % (request_line, status, body_bytes, agents)


def render_agents(referer: bytes, user_agent: bytes) -> bytes:
    """Return the end of a combined line, line feed and all."""
    return b'"%b" "%b"\n' % (_escape(referer) or b"-", _escape(user_agent) or b"-")


def _escape(value: bytes) -> bytes:
    if _UNSAFE.search(value) is None:
        return value
    return _UNSAFE.sub(lambda match: _ESCAPES[match[0]], value)


@lru_cache(_REMEMBERED)
def _escape_client(client: str) -> bytes:
    return _escape(client.encode("utf-8", "backslashreplace")) or b"-"


def _render_stamp(second: int) -> bytes:
    """Return ``24/Nov/2026:05:41:34 +0100``, the month in English whatever the locale."""
    local = time.localtime(second)
    sign, minutes = (b"-", -local.tm_gmtoff // 60) if local.tm_gmtoff < 0 else (b"+", local.tm_gmtoff // 60)
    return b"%02d/%b/%04d:%02d:%02d:%02d %b%02d%02d" % (
        local.tm_mday,
        _MONTHS[local.tm_mon - 1],
        local.tm_year,
        local.tm_hour,
        local.tm_min,
        local.tm_sec,
        sign,
        minutes // 60,
        minutes % 60,
    )


def _format_json(entry: AccessEntry) -> bytes:
    """Render a JSON object; every key is always there. Bytes that are not UTF-8 read ``\\xHH``."""
    milliseconds = int(entry.wall_s * 1000) % 1000
    values: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(entry.wall_s)) + f".{milliseconds:03d}Z",
        "client": entry.client,
        "method": _to_text(entry.method),
        "target": _to_text(entry.target),
        "version": _to_text(_VERSIONS.get(entry.version, b"")),
        "status": entry.status,
        "body_bytes": entry.body_bytes,
        "duration_ms": round(entry.duration_s * 1000, 3),
        "host": _to_text(entry.host),
        "referer": _to_text(entry.referer),
        "user_agent": _to_text(entry.user_agent),
        "upstream": entry.upstream,
        "cache": entry.cache,
        "failure": entry.failure,
    }
    return json.dumps(values).encode("ascii") + b"\n"


def _to_text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
