"""Opens idle connections to a fresh instance, silent or after one answer each, and weighs what is kept for them."""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator

from fleet import raise_descriptor_limit
from measure import Sample, process_tree, pss_kib
from peers import Instance
from works import Work

# A browser's, with a URL and a cookie that never come again: a proxy that holds on to what it read last is found out.
_REQUEST = b"""\
GET /p/%d HTTP/1.1\r
Host: 127.0.0.1\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36\r
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r
Accept-Language: en-US,en;q=0.5\r
Accept-Encoding: identity\r
Referer: http://127.0.0.1/index.html\r
Sec-Fetch-Dest: document\r
Sec-Fetch-Mode: navigate\r
Sec-Fetch-Site: same-origin\r
Upgrade-Insecure-Requests: 1\r
Cookie: session=%d; theme=light\r
\r
"""
_BODY_BYTES = 1_024
# What a first connection brings into memory is not weighed. A few at a time: what these free is used again.
_TRIALS = 5
_BATCH = 20
_DEADLINE_S = 60.0
_ACCEPT_DEADLINE_S = 5.0
_SETTLE_S = 0.5
# Descriptors for ourselves.
_SPARE = 500
# Reset, not closed: ten thousand ports in TIME_WAIT would be the next peer's burden.
_RESET = struct.pack("ii", 1, 0)


def measure_idle(instance: Instance, work: Work) -> Sample:
    """Weigh ``work.connections`` connections. The instance must not have done any other work: a process that once held
    more memory takes the connections' from what it freed, and they seem to cost nothing."""
    count = min(work.connections, raise_descriptor_limit() - _SPARE)
    errors = {} if count == work.connections else {"fewer: limit of descriptors": work.connections - count}
    for _ in range(_TRIALS):
        with _opened(instance.port, _BATCH, asks=True):
            pass
    time.sleep(_SETTLE_S)
    before, descriptors = pss_kib(instance.pids), _count_descriptors(instance)
    with _opened(instance.port, count, asks=not work.silent) as sockets:
        _await(lambda: _count_descriptors(instance) >= descriptors + len(sockets))
        time.sleep(_SETTLE_S)  # a proxy may still be at work on the last ones; nothing tells when it is not
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
def _opened(port: int, count: int, *, asks: bool) -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    deadline = time.monotonic() + _DEADLINE_S
    try:
        while len(sockets) < count and time.monotonic() < deadline:
            batch = range(len(sockets), min(len(sockets) + _BATCH, count))
            opened = [_connect(port, _REQUEST % (number, 104_729 * number) if asks else b"") for number in batch]
            good = [connection for connection in opened if connection and (not asks or _is_answered(connection))]
            sockets += good
            if not good:
                break
        yield sockets
    finally:
        for connection in sockets:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            connection.close()


def _connect(port: int, request: bytes) -> socket.socket | None:
    connection = socket.socket()
    try:
        connection.settimeout(5)
        connection.connect(("127.0.0.1", port))
        connection.sendall(request)
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


def _count_descriptors(instance: Instance) -> int:
    """Of all the proxy's processes: they tell when it has accepted what the kernel has taken for it."""
    total = 0
    for pid in process_tree(instance.pids):
        with contextlib.suppress(OSError):  # it ended, or may not be looked into
            total += len(os.listdir(f"/proc/{pid}/fd"))
    return total


def _await(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _ACCEPT_DEADLINE_S
    while not is_done() and time.monotonic() < deadline:
        time.sleep(0.1)


def _count_closed(sockets: list[socket.socket]) -> int:
    """An idle connection has nothing to read, unless its end."""
    poll = select.poll()
    for connection in sockets:
        poll.register(connection, select.POLLIN)
    return len(poll.poll(0))
