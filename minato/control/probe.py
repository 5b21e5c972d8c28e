"""One probe of one upstream, non-blocking on a Loop: connect, TLS where https, GET its health_uri, judge the status."""

from __future__ import annotations

import enum
import errno
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import h11

from minato.config.model import HealthConfig, Upstream
from minato.decide.health import ProbeResult, judge_status
from minato.net.loop import READ, WRITE, Loop
from minato.net.resolve import ResolvedAddress
from minato.net.scarce import OUT_OF_RESOURCES
from minato.net.tls_stream import send_close_alert
from minato.protocol.proxy_protocol import render_proxy_header

MAX_HEAD_BYTES = 65_536
RECV_BYTES = 16_384
MAX_REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """What is probed and how.

    Attributes:
        upstream: whose health_uri is asked for.
        addresses: tried in order until one answers as expected; empty where the name did not resolve.
        config: timeouts and expected statuses.
        tls: for https upstreams; verifies certificates.
    """

    upstream: Upstream
    addresses: tuple[ResolvedAddress, ...]
    config: HealthConfig
    tls: ssl.SSLContext | None = None


class Step(enum.IntEnum):
    """How far a probe came with one address; the order is that of progress."""

    CONNECT = 0
    HANDSHAKE = 1
    SEND = 2
    RECEIVE = 3
    DONE = 4


class ProbeFailed(Exception):
    """An address that is not healthy; the message is the reason."""


class Probe:
    """One probe. ``done`` is called once with the result, unless the probe is cancelled first.

    Every address has ``tcp_timeout`` to accept a connection, and ``http_timeout`` for all of handshake, request and
    response head together; the whole probe has the sum of both, however many addresses there are.
    """

    __slots__ = (
        "_best",
        "_deadline_s",
        "_done",
        "_events",
        "_h11",
        "_is_ours",
        "_loop",
        "_received_bytes",
        "_sock",
        "_step",
        "_target",
        "_timer",
        "_unsent",
        "_untried",
        "_was_asked",
    )

    def __init__(self, loop: Loop, target: ProbeTarget, done: Callable[[ProbeResult], None]) -> None:
        self._loop = loop
        self._target = target
        self._done = done
        self._untried = list(reversed(target.addresses))
        self._timer = loop.timer(self._on_timeout)
        self._deadline_s = loop.now_s + target.config.tcp_timeout_s + target.config.http_timeout_s
        # The reason that is told: of the address that came furthest, of the last one among equals.
        self._best = (Step.CONNECT, "its name does not resolve")
        self._is_ours = False  # whether no address was asked, for want of descriptors, ports or memory
        self._was_asked = False
        self._sock: socket.socket | None = None
        self._events = 0
        self._step = Step.CONNECT

    def start(self) -> None:
        """Begin with the first address. ``done`` may be called before this returns."""
        self._try_next_address()

    def cancel(self) -> None:
        """Give up without a result."""
        self._step = Step.DONE
        self._timer.cancel()
        self._disconnect()

    def abandon(self) -> None:
        """In a forked child: close the child's copy of the socket; connection and epoll stay the parent's."""
        if self._sock is not None:
            self._sock.close()

    def _try_next_address(self) -> None:
        self._step = Step.CONNECT
        while self._untried and self._loop.now_s < self._deadline_s:
            try:
                self._connect(self._untried.pop())
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._is_ours = self._is_ours or not self._was_asked
                else:
                    self._note_asked()
                self._note_failure(_describe(error))
            else:
                return
        self._finish(ProbeResult(False, self._best[1], self._is_ours))

    def _note_asked(self) -> None:
        """An address was asked: from now on what goes wrong is the upstream's failure."""
        self._was_asked = True
        self._is_ours = False

    def _connect(self, address: ResolvedAddress) -> None:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            code = sock.connect_ex(address.sockaddr)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            self._loop.add(sock.fileno(), WRITE, self._on_event)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        self._events = WRITE
        self._limit(self._target.config.tcp_timeout_s)

    def on_crash(self) -> None:
        """The loop caught an error that nobody foresaw: a failure of this probe, and no more than that."""
        if self._step is not Step.DONE:
            self.cancel()
            self._finish(ProbeResult(False, "internal error"))

    def _on_event(self, events: int) -> None:
        """Go on as far as it goes; whatever goes wrong is this address's failure."""
        try:
            self._advance()
        except (ProbeFailed, OSError, h11.ProtocolError) as error:
            self._fail(_describe(error))

    def _advance(self) -> None:
        try:
            while self._step is not Step.DONE:
                _ACTIONS[self._step](self)
        except ssl.SSLWantReadError:
            self._watch(READ)
        except ssl.SSLWantWriteError:
            self._watch(WRITE)
        except BlockingIOError:
            self._watch(READ if self._step is Step.RECEIVE else WRITE)

    def _finish_connect(self) -> None:
        sock = self._socket()
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        # A port nobody listens on may be given to this very socket, which then is connected to itself.
        if code == 0 and sock.getsockname() == sock.getpeername():
            code = errno.ECONNREFUSED
        if code:
            raise OSError(code, os.strerror(code))
        self._limit(self._target.config.http_timeout_s)
        if self._target.upstream.proxy_protocol is not None:
            # It is on nobody's behalf: LOCAL, or UNKNOWN. So few bytes are always taken at once.
            sock.send(render_proxy_header(self._target.upstream.proxy_protocol.version, None))
        if self._target.tls is not None:
            self._wrap(self._target.tls)
            self._step = Step.HANDSHAKE
        else:
            self._begin_request()

    def _wrap(self, context: ssl.SSLContext) -> None:
        """Put TLS around the socket. Not watched meanwhile: ssl closes the descriptor when it refuses."""
        sock = self._socket()
        self._loop.remove(sock.fileno())
        self._sock = None
        host = self._target.upstream.host
        try:
            wrapped = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        except BaseException:
            sock.close()
            raise
        self._sock = wrapped
        self._loop.add(wrapped.fileno(), WRITE, self._on_event)
        self._events = WRITE

    def _shake_hands(self) -> None:
        sock = self._socket()
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
        self._begin_request()

    def _begin_request(self) -> None:
        upstream = self._target.upstream
        headers = [
            ("Host", upstream.authority),
            ("User-Agent", "minato-health"),
            ("Accept", "*/*"),
            ("Connection", "close"),
        ]
        # h11 has a cap of its own; this one is above ours, so that the reason is ours.
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES + 2 * RECV_BYTES)
        self._unsent = self._h11.send(h11.Request(method="GET", target=upstream.health_uri, headers=headers)) or b""
        self._h11.send(h11.EndOfMessage())
        self._received_bytes = 0
        self._step = Step.SEND

    def _send(self) -> None:
        while self._unsent:
            self._unsent = self._unsent[self._socket().send(self._unsent) :]
        self._step = Step.RECEIVE

    def _receive(self) -> None:
        data = self._socket().recv(RECV_BYTES)
        if not data:
            raise ProbeFailed(
                f"connection closed {'within the response head' if self._received_bytes else 'unanswered'}"
            )
        self._received_bytes += len(data)
        self._h11.receive_data(data)
        while (event := self._h11.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response):
                self._judge(event.status_code)
                return
            if not isinstance(event, h11.InformationalResponse):
                raise ProbeFailed("malformed response")
        if self._received_bytes > MAX_HEAD_BYTES:
            raise ProbeFailed(f"response head over {MAX_HEAD_BYTES} bytes")

    def _judge(self, status: int) -> None:
        result = judge_status(status, self._target.config.expect, self._target.config.drain)
        if result.ok:
            self._disconnect()
            self._finish(result)
        else:
            raise ProbeFailed(result.reason)

    def _on_timeout(self) -> None:
        config = self._target.config
        if self._step is Step.CONNECT:
            self._fail(f"no connection within {config.tcp_timeout_s:g} s")
        elif self._step is Step.HANDSHAKE:
            self._fail(f"no TLS handshake within {config.http_timeout_s:g} s")
        else:
            self._fail(f"no response within {config.http_timeout_s:g} s")

    def _fail(self, reason: str) -> None:
        """This address failed: note why, try the next."""
        self._note_asked()
        self._note_failure(reason)
        self._disconnect()
        self._try_next_address()

    def _note_failure(self, reason: str) -> None:
        if self._step >= self._best[0]:
            self._best = (self._step, reason[:MAX_REASON_CHARS])

    def _finish(self, result: ProbeResult) -> None:
        self._step = Step.DONE
        self._timer.cancel()
        self._done(result)

    def _limit(self, limit_s: float) -> None:
        self._timer.set(min(limit_s, self._deadline_s - self._loop.now_s))

    def _watch(self, events: int) -> None:
        if events != self._events:
            self._loop.modify(self._socket().fileno(), events)
            self._events = events

    def _disconnect(self) -> None:
        if self._sock is not None:
            self._loop.remove(self._sock.fileno())
            if isinstance(self._sock, ssl.SSLSocket):
                send_close_alert(self._sock)
            self._sock.close()
            self._sock = None

    def _socket(self) -> socket.socket:
        if self._sock is None:
            raise RuntimeError(f"a probe without a socket at {self._step.name}")
        return self._sock


_ACTIONS: dict[Step, Callable[[Probe], None]] = {
    Step.CONNECT: Probe._finish_connect,
    Step.HANDSHAKE: Probe._shake_hands,
    Step.SEND: Probe._send,
    Step.RECEIVE: Probe._receive,
}


def make_tls_context() -> ssl.SSLContext:
    """Return what https upstreams are probed with: certificates verified against the system's authorities."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _describe(error: Exception) -> str:
    """Say in a few words why, for the log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, h11.ProtocolError):
        return f"malformed response: {error}"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error)
