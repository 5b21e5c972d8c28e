"""What the admin API answers with: JSON and a status, rendered whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

from minato.protocol.message import Fields, Framing, RequestHead
from minato.protocol.render import render_response


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        status: the HTTP status.
        content: what becomes the JSON body.
        fields: further fields, such as Allow.
    """

    status: int
    content: Mapping[str, object]
    fields: tuple[tuple[bytes, bytes], ...] = ()


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status, answer.content)
        self.answer = answer


def refuse(status: int, error: str, *fields: tuple[bytes, bytes]) -> Refused:
    """Return the refusal with that status, whose body says ``{"error": error}``."""
    return Refused(Answer(status, {"error": error}, fields))


def render_answer(answer: Answer, head: RequestHead | None, wall_s: float, *, close: bool) -> bytes:
    """Return an answer as it goes on the wire.

    Args:
        answer: what to say.
        head: of the request, None where it could not be read.
        wall_s: wall clock, for Date.
        close: whether the connection ends with it.
    """
    body = json.dumps(answer.content).encode() + b"\n"
    fields: Fields = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"date", formatdate(wall_s, usegmt=True).encode("ascii")),
        *answer.fields,
    ]
    connection = b"close" if close else b"keep-alive" if head is not None and head.version < 11 else b""
    phrase = HTTPStatus(answer.status).phrase.encode("ascii")
    front = render_response(answer.status, phrase, fields, Framing.LENGTH, len(body), connection)
    return front if head is not None and head.method == b"HEAD" else front + body
