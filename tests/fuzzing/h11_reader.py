"""h11 on its own, without minato's guard in front of it: reads both directions as a Python server or client would."""

from __future__ import annotations

from collections.abc import Sequence

import h11

from tests.fuzzing.messages import Message, Reading

_MAX_HEAD_BYTES = 1_048_576


def read_requests(data: bytes) -> Reading:
    """Read requests, each answered in thought before the next is read."""
    reading = Reading([])
    while data and not reading.error:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        connection.receive_data(data)
        data = _read_message(connection, reading)
    return reading


def read_responses(data: bytes, methods: Sequence[bytes], *, ends: bool) -> Reading:
    """Read responses to ``methods``; ``ends``: the stream ended behind ``data``."""
    reading = Reading([])
    left = list(methods)
    while data and not reading.error:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        method = left.pop(0) if left else b"GET"
        fields = [(b"host", b"x"), (b"connection", b"upgrade"), (b"upgrade", b"websocket")]
        connection.send(h11.Request(method=method, target=b"/", headers=fields))
        connection.send(h11.EndOfMessage())
        connection.receive_data(data)
        if ends:
            connection.receive_data(b"")
        data = _read_message(connection, reading)
    return reading


def _read_message(connection: h11.Connection, reading: Reading) -> bytes:
    """Read one message, and the interim ones before it; return what is behind it, nothing where it is not complete."""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                reading.messages.append(Message((event.method, event.target), fields=list(event.headers)))
            elif isinstance(event, h11.InformationalResponse):
                is_interim = event.status_code != 101
                reading.messages.append(
                    Message((event.status_code,), complete=True, is_interim=is_interim, fields=list(event.headers))
                )
                if not is_interim:
                    return b""
            elif isinstance(event, h11.Response):
                reading.messages.append(Message((event.status_code,), fields=list(event.headers)))
            elif isinstance(event, h11.Data):
                reading.messages[-1].body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                reading.messages[-1].complete = True
                return connection.trailing_data[0]
            else:
                return b""
    except h11.RemoteProtocolError as error:
        # The stream's end inside a message is no fault of its syntax.
        if "closed" not in str(error):
            reading.error = f"h11: {error}"
        return b""
