"""Typed errors: every one knows its HTTP status, which side caused it, and whether another upstream may be tried."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Source(enum.Enum):
    """Which side an error came from."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    INTERNAL = "internal"


class MinatoError(Exception):
    """The root of every error minato raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a config file.

    Attributes:
        line: 1-based line in the file; 0 when the problem has no line.
        key_path: dotted path, such as ``services[0].upstreams[1].host``; empty for the whole file.
        message: what is wrong, and what would be right, in one line.
    """

    line: int
    key_path: str
    message: str

    def render(self, file: str) -> str:
        """Return the problem as ``FILE:LINE: key.path: message``."""
        where = f"{file}:{self.line}" if self.line else file
        return f"{where}: {self.key_path}: {self.message}" if self.key_path else f"{where}: {self.message}"


class ConfigError(MinatoError):
    """A config file that cannot be used; carries every problem at once, in the order of their lines."""

    def __init__(self, file: str, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(problem.render(file) for problem in problems))
        self.file = file
        self.problems = problems


class BootError(MinatoError):
    """minato cannot start (an address in use, no shared memory); the message is one clear line."""


class ExchangeError(MinatoError):
    """An exchange that cannot go on as asked.

    Attributes:
        status: the status minato answers with if nothing has been sent downstream yet.
        public: what the client is told; nothing about the inside.
        detail: what the log says.
        source: which side caused it.
        retryable: whether another upstream may be tried, as far as this error is concerned.
        fields: further fields of the answer, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        public: str,
        *,
        detail: str = "",
        source: Source,
        retryable: bool = False,
        fields: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(detail or public)
        self.status = status
        self.public = public
        self.detail = detail or public
        self.source = source
        self.retryable = retryable
        self.fields = fields


class NoRoomError(ExchangeError):
    """503: the upstreams that are healthy have as many exchanges in flight as they may (source: upstream)."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            503,
            "no upstream is available",
            detail=detail,
            source=Source.UPSTREAM,
            fields=((b"retry-after", b"1"),),
        )


class RequestError(ExchangeError):
    """A request that is malformed or over a limit (source: downstream)."""

    def __init__(
        self, status: int, public: str, *, detail: str = "", fields: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(status, public, detail=detail, source=Source.DOWNSTREAM, fields=fields)


class UpstreamError(ExchangeError):
    """An upstream that failed: refused, reset, too slow, or answered what nobody can frame (source: upstream)."""

    def __init__(
        self,
        status: int,
        public: str,
        *,
        detail: str = "",
        retryable: bool = True,
        fields: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(status, public, detail=detail, source=Source.UPSTREAM, retryable=retryable, fields=fields)
