"""Connecting to an upstream: its addresses one after the other, then TLS where it is https; never waits."""

from __future__ import annotations

import enum
import errno
import os
import socket
import ssl
from collections.abc import Callable
from typing import Final

from minato.net.loop import READ, WRITE, Loop
from minato.net.resolve import ResolvedAddress
from minato.net.runtime import UpstreamRuntime
from minato.net.scarce import OUT_OF_DESCRIPTORS, OUT_OF_RESOURCES

_EPHEMERAL_FROM: Final = 32_768
_WORDS: Final = {errno.ECONNREFUSED: "connection refused", errno.ETIMEDOUT: "connection timed out"}

OnConnected = Callable[[socket.socket], None]
"""Takes over the connected socket, which stays registered in the loop."""


class Blame(enum.Enum):
    """Who is to blame for a connection that failed."""

    NOT_ACCEPTED = "nobody accepts connections there"
    UPSTREAM = "the upstream, though it accepts connections"
    HERE = "this machine, which is out of descriptors, memory or ports"


OnFailed = Callable[[str, Blame], None]
"""Hears why it failed, and who is to blame."""


class Connector:
    """One attempt to connect; it ends with one of its two callbacks, or with ``close``. ``preamble`` goes first.

    Attributes:
        is_accepted: whether an address took the connection, so that only TLS is missing.
        on_crash: called by the loop after an error in here that nobody expected.
    """

    def __init__(
        self,
        loop: Loop,
        upstream: UpstreamRuntime,
        tls: ssl.SSLContext | None,
        on_connected: OnConnected,
        on_failed: OnFailed,
        on_crash: Callable[[], None],
        make_room: Callable[[], bool],
        preamble: bytes = b"",
    ) -> None:
        """Make an attempt that rests until `start`.

        Args:
            loop: the worker's.
            upstream: whose addresses are tried.
            tls: for https.
            on_connected: called with the socket.
            on_failed: called when no address would do.
            on_crash: see above.
            make_room: closes what can be spared where descriptors run out; tells whether there was anything.
            preamble: what goes first.
        """
        self._loop = loop
        self._upstream = upstream
        self._tls = tls if upstream.is_tls else None
        self._on_connected = on_connected
        self._on_failed = on_failed
        self.on_crash = on_crash
        self._make_room = make_room
        self._preamble = preamble
        self._addresses: list[ResolvedAddress] = list(upstream.addresses)
        self._sock: socket.socket | None = None
        self._was_tried = False  # whether an address was asked and said no
        self.is_accepted = False

    def start(self) -> None:
        """Begin; a callback may be called before this returns."""
        if self._addresses:
            self._connect_next("")
        else:
            self._on_failed("its name does not resolve", Blame.UPSTREAM)

    def close(self) -> None:
        """Give up; no callback is called any more."""
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.remove(sock.fileno())
            sock.close()

    def _connect_next(self, previous: str) -> None:
        """Try the next address; ``previous`` says what was wrong with the one before."""
        if not self._addresses:
            self._fail(previous, Blame.NOT_ACCEPTED if self._was_tried else Blame.HERE)
            return
        address = self._addresses.pop(0)
        try:
            try:
                sock = self._begin_connect(address)
            except OSError as error:
                if error.errno not in OUT_OF_DESCRIPTORS or not self._make_room():
                    raise
                sock = self._begin_connect(address)
        except OSError as error:
            self._address_failed(error.errno or 0)
            return
        self._sock = sock

    def _begin_connect(self, address: ResolvedAddress) -> socket.socket:
        sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex(address.sockaddr)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            self._loop.add(sock.fileno(), WRITE, self._on_event)
        except BaseException:
            sock.close()
            raise
        return sock

    def _on_event(self, mask: int) -> None:
        sock = self._sock
        if sock is None:
            return
        if self.is_accepted:
            self._handshake()
            return
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0 and self._is_connected_to_itself(sock):
            code = errno.ECONNREFUSED
        if code:
            self.close()
            self._address_failed(code)
            return
        self.is_accepted = True
        if self._preamble and not self._send_preamble(sock):
            return
        if self._tls is None:
            self._succeed(sock)
        else:
            self._begin_handshake(sock, self._tls)

    def _send_preamble(self, sock: socket.socket) -> bool:
        """Send what goes first; it is far less than any new socket takes."""
        try:
            if sock.send(self._preamble) == len(self._preamble):
                return True
            why = "it takes no PROXY header"
        except OSError as error:
            why = describe_error(error)
        self._fail(why, Blame.UPSTREAM)
        return False

    def _address_failed(self, code: int) -> None:
        words = _WORDS.get(code, errno.errorcode.get(code, str(code)))
        if code in OUT_OF_RESOURCES:
            self._connect_next(f"cannot connect from here: {words}")
        else:
            self._was_tried = True
            self._connect_next(words)

    def _is_connected_to_itself(self, sock: socket.socket) -> bool:
        """A connect to an ephemeral port of this machine on which nobody listens can meet itself."""
        if self._upstream.port < _EPHEMERAL_FROM:
            return False
        try:
            return bool(sock.getsockname() == sock.getpeername())
        except OSError:
            return False

    def _begin_handshake(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        fd = sock.fileno()
        try:
            # An end without a close alert may be an attacker's: it must not look like the end of a response.
            self._sock = context.wrap_socket(
                sock,
                server_hostname=self._upstream.server_name,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
            )
        except (OSError, ValueError) as error:
            # The wrapped socket took the descriptor and closed it; only the registration is left.
            self._loop.forget(fd)
            self._sock = None
            self._fail(f"TLS: {error}", Blame.UPSTREAM)
            return
        self._handshake()

    def _handshake(self) -> None:
        sock = self._sock
        assert isinstance(sock, ssl.SSLSocket)
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.modify(sock.fileno(), READ)
        except ssl.SSLWantWriteError:
            self._loop.modify(sock.fileno(), WRITE)
        except OSError as error:
            self._fail(f"TLS: {describe_error(error)}", Blame.UPSTREAM)
        else:
            self._succeed(sock)

    def _succeed(self, sock: socket.socket) -> None:
        self._sock = None
        self._on_connected(sock)

    def _fail(self, why: str, blame: Blame) -> None:
        self.close()
        self._on_failed(why, blame)


def describe_error(error: OSError) -> str:
    """Return a connection's error in a few words for the log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not valid: {error.verify_message}"
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    return error.strerror or str(error)
