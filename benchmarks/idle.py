"""Opens idle connections, each after one answered request, and weighs what the proxy keeps for them."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import struct
import time
from collections.abc import Iterator

from measure import Sample, pss_kib
from peers import Instance, raise_descriptor_limit

_REQUEST = b"GET /1k HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_BODY_BYTES = 1_024
_TRIAL = 200
_BATCH = 20
_DEADLINE_S = 60.0
# Descriptors for ourselves.
_SPARE = 500
# Reset, not closed: ten thousand ports in TIME_WAIT would be the next peer's burden.
_RESET = struct.pack("ii", 1, 0)


def measure_idle(instance: Instance, connections: int) -> Sample:
    """A trial first, so that what a first connection brings into memory is not weighed."""
    count = min(connections, raise_descriptor_limit() - _SPARE)
    errors = {} if count == connections else {"fewer: limit of descriptors": connections - count}
    with _opened(instance.port, _TRIAL):
        pass
    before = pss_kib(instance.pids)
    with _opened(instance.port, count) as sockets:
        time.sleep(0.5)  # a proxy may still be at work on the last ones; nothing tells when it is not
        after = pss_kib(instance.pids)
        closed = _count_closed(sockets)
    if len(sockets) < count:
        errors["not answered"] = count - len(sockets)
    if closed:
        errors["not kept open"] = closed
    is_open = len(sockets) - closed
    if not is_open or before is None or after is None:
        return Sample(is_open, pss_kib=after, errors=errors)
    return Sample(is_open, pss_kib=after, connection_bytes=(after - before) * 1_024 / is_open, errors=errors)


@contextlib.contextmanager
def _opened(port: int, count: int) -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    deadline = time.monotonic() + _DEADLINE_S
    try:
        while len(sockets) < count and time.monotonic() < deadline:
            asked = [_ask(port) for _ in range(min(_BATCH, count - len(sockets)))]
            answered = [connection for connection in asked if connection is not None and _is_answered(connection)]
            sockets += answered
            if not answered:
                break
        yield sockets
    finally:
        for connection in sockets:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            connection.close()


def _ask(port: int) -> socket.socket | None:
    connection = socket.socket()
    try:
        connection.settimeout(5)
        connection.connect(("127.0.0.1", port))
        connection.sendall(_REQUEST)
    except OSError:
        connection.close()
        return None
    return connection


def _is_answered(connection: socket.socket) -> bool:
    """Reads the answer to its end, chunked or not; a connection that brings none is closed."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        is_right = response.status == 200 and len(response.read()) == _BODY_BYTES
    except (OSError, http.client.HTTPException):
        is_right = False
    response.close()
    if not is_right:
        connection.close()
    return is_right


def _count_closed(sockets: list[socket.socket]) -> int:
    """An idle connection has nothing to read, unless its end."""
    poll = select.poll()
    for connection in sockets:
        poll.register(connection, select.POLLIN)
    return len(poll.poll(0))
