"""llhttp, the parser of Node, by way of httptools: reads what minato sent and what it got."""

from __future__ import annotations

import re
from collections.abc import Sequence

import httptools

from tests.fuzzing.messages import Message, Reading

# Where llhttp is narrower than the standard: it knows these methods only (RFC 9110, 9.1: any token is one), no minor
# version above 1 (RFC 9110, 2.5: it is to be read as the highest one that is known), and no tab behind a value (5.5).
METHODS = frozenset(
    b"DELETE GET HEAD POST PUT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND "
    b"ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR LINK "
    b"UNLINK".split()
)
_HIGHER_MINOR = re.compile(rb"HTTP/1\.[2-9](?= )")
_TAB_BEHIND = re.compile(rb"[ \t]*\t[ \t]*\r\n")
# It takes Proxy-Connection, which is in no standard, for Connection, and what an interim response says of the
# connection for its end; RFC 9112, 9.6 speaks of the final one.
_NOT_CONNECTION = re.compile(rb"(?i)(?<=\r\n)(?=proxy-connection[ \t]*:)")
_ANY_CONNECTION = re.compile(rb"(?i)(?<=\r\n)(?=(?:proxy-)?connection[ \t]*:)")
_INTERIM = re.compile(rb"HTTP/1\.[0-9] 1[0-9][0-9]")


class _Events:
    """What httptools tells of one connection."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.parser: httptools.HttpRequestParser | httptools.HttpResponseParser
        self.heads = 0
        self._target = b""

    def on_message_begin(self) -> None:
        self._target = b""
        self.messages.append(Message((b"",)))

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.messages[-1].fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.heads += 1
        message = self.messages[-1]
        if isinstance(self.parser, httptools.HttpRequestParser):
            message.start = (self.parser.get_method(), self._target)
        else:
            status = self.parser.get_status_code()
            message.start = (status,)
            message.is_interim = status < 200 and status != 101

    def on_body(self, body: bytes) -> None:
        self.messages[-1].body += body

    def on_message_complete(self) -> None:
        self.messages[-1].complete = True


def read_requests(data: bytes) -> Reading:
    """Read requests; one that asks for an upgrade and has a body is read by its head alone, and is the last."""
    events = _Events()
    while data:
        events.parser = httptools.HttpRequestParser(events)
        try:
            events.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # To http-parser all behind such a head is another protocol. The origin declines, so that it is HTTP still.
            data = data[upgrade.args[0] :]
            last = events.messages[-1]
            if last.get(b"content-length") not in (None, b"0") or last.get(b"transfer-encoding") is not None:
                last.complete = False
                return Reading(events.messages, "an upgrade with a body, which http-parser does not read")
            continue
        except httptools.HttpParserError as error:
            return _refused(events, error)
        return Reading(events.messages)
    return Reading(events.messages)


def read_responses(data: bytes, methods: Sequence[bytes], *, ends: bool) -> Reading:
    """Read responses to ``methods``. httptools cannot be told of HEAD: behind such a head it begins anew."""
    left, messages = list(methods), []
    while data:
        method = left[0] if left else b"GET"
        if method == b"HEAD":
            size = data.find(b"\r\n\r\n") + 4
            reading = _read_some(data[:size] if size >= 4 else data, ends=False)
            if reading.messages and size >= 4 and not reading.error:
                reading.messages[0].complete = True
            data = data[size:] if size >= 4 else b""
        else:
            # Up to the next HEAD all is one connection to llhttp.
            count = left.index(b"HEAD") if b"HEAD" in left else None
            size = len(data) if count is None else _measure(data, count)
            reading = _read_some(data[:size], ends=ends and size == len(data))
            data = data[size:]
        messages += reading.messages
        if reading.error or (messages and not messages[-1].complete):
            return Reading(messages, reading.error)
        finals = sum(1 for message in reading.messages if not message.is_interim)
        left = left[finals:]
    return Reading(messages)


def in_its_terms(data: bytes) -> bytes:
    """Return the same response with the heads in front of its body spelt so that llhttp knows them."""
    known = b""
    while True:
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return known + data
        is_interim = _INTERIM.match(data)
        head = _TAB_BEHIND.sub(b"\r\n", _HIGHER_MINOR.sub(b"HTTP/1.1", data[:end], count=1))
        known += (_ANY_CONNECTION if is_interim else _NOT_CONNECTION).sub(b"X-", head)
        data = data[end:]
        if not is_interim:
            return known + data


def _measure(data: bytes, count: int) -> int:
    """Return the size of the first ``count`` final responses, found by feeding one byte at a time."""
    events = _Events()
    parser = events.parser = httptools.HttpResponseParser(events)
    for at in range(len(data)):
        try:
            parser.feed_data(data[at : at + 1])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return len(data)
        if sum(1 for message in events.messages if message.complete and not message.is_interim) >= count:
            return at + 1
    return len(data)


def _read_some(data: bytes, *, ends: bool) -> Reading:
    events = _Events()
    parser = events.parser = httptools.HttpResponseParser(events)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        return Reading(events.messages)
    except httptools.HttpParserError as error:
        return _refused(events, error)
    last = events.messages[-1] if events.messages else None
    if last is not None and not last.complete and ends and events.heads == len(events.messages):
        # httptools has no call for the end of the stream, which ends a message that no field frames.
        last.complete = last.get(b"content-length") is None and last.get(b"transfer-encoding") is None
    return Reading(events.messages)


def _refused(events: _Events, error: httptools.HttpParserError) -> Reading:
    if events.messages and not events.messages[-1].complete and events.heads < len(events.messages):
        events.messages.pop()
    return Reading(events.messages, f"llhttp: {error}")
