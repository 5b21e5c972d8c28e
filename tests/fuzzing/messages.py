"""What a reader made of some bytes: the messages in order, and what kept it from reading on."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Message:
    """One message: ``start`` is a request's (method, target) or a response's (status,).

    Attributes:
        complete: whether its end was read. An incomplete one's body is what had come of it.
        is_interim: whether it is a 1xx response (a 101 is not).
        fields: names in lower case with their values, where the reader tells them.
        at: where the plain reader found it.
    """

    start: tuple[bytes | int, ...]
    body: bytes = b""
    complete: bool = False
    is_interim: bool = False
    fields: list[tuple[bytes, bytes]] = field(default_factory=list, compare=False)
    at: int = field(default=0, compare=False)

    def get(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.fields if key == name), None)

    def __repr__(self) -> str:
        body = repr(self.body if len(self.body) <= 60 else self.body[:60] + b"...")
        end = "" if self.complete else " (cut)"
        return f"<{' '.join(map(_text, self.start))} {len(self.body)} bytes {body}{end}>"


@dataclass
class Reading:
    """All that one reader read. ``error`` says why it refused to go on; empty where it did not.

    ``rest`` is, where the reader tells it, what it got to no end with.
    """

    messages: list[Message]
    error: str = ""
    rest: bytes = b""

    @property
    def complete(self) -> list[Message]:
        return [message for message in self.messages if message.complete]

    @property
    def final(self) -> list[Message]:
        return [message for message in self.messages if not message.is_interim]

    def __repr__(self) -> str:
        return f"{self.messages}" + (f" then {self.error}" if self.error else "")


def _text(part: bytes | int) -> str:
    return part.decode("latin-1") if isinstance(part, bytes) else str(part)
