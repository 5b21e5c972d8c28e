"""What is thrown at minato: bytes of a client, or a client's requests and a hostile origin's answers to them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from tests.fuzzing import wire_text
from tests.fuzzing.mutate import cut, mutate_request, mutate_response
from tests.fuzzing.wire_text import Entry

CORPUS = Path(__file__).parents[1] / "corpus"
ID_PLACE = b"IDIDID"
_FIRST_ID = 900_000


@dataclass(frozen=True)
class RequestCase:
    """One client connection: what it sends, in pieces, and whether it then ends its half or waits."""

    pieces: tuple[bytes, ...]
    half_closes: bool = True

    @property
    def wire(self) -> bytes:
        return b"".join(self.pieces)

    def with_wire(self, wire: bytes) -> RequestCase:
        return RequestCase((wire,), self.half_closes)

    def __str__(self) -> str:
        return f"# pieces of {[len(piece) for piece in self.pieces]} bytes, half_closes={self.half_closes}\n" + (
            wire_text.dump(self.wire)
        )


@dataclass(frozen=True)
class Answer:
    """What the origin sends as the answer to one request: `ID_PLACE` becomes the request's id."""

    pieces: tuple[bytes, ...]
    closes: bool = False

    @property
    def wire(self) -> bytes:
        return b"".join(self.pieces)


@dataclass(frozen=True)
class ResponseCase:
    """One client connection: the methods of its requests, all at once or one by one, and the answers as they are due.

    A request that no answer is left for gets a plain one.
    """

    methods: tuple[bytes, ...]
    answers: tuple[Answer, ...]
    pipelined: bool = True

    @property
    def wire(self) -> bytes:
        return self.answers[0].wire

    def with_wire(self, wire: bytes) -> ResponseCase:
        return ResponseCase(self.methods, (Answer((wire,), self.answers[0].closes), *self.answers[1:]), self.pipelined)

    def __str__(self) -> str:
        parts = [f"# methods={self.methods}, pipelined={self.pipelined}"]
        for answer in self.answers:
            parts.append(f"# an answer in pieces of {[len(p) for p in answer.pieces]} bytes, closes={answer.closes}")
            parts.append(wire_text.dump(answer.wire))
        return "\n".join(parts)


Case = RequestCase | ResponseCase


def request_id(number: int) -> bytes:
    """Return six digits that stand for one request and occur nowhere else."""
    return b"%d" % (_FIRST_ID + number % 100_000)


def request_entries() -> list[Entry]:
    return wire_text.load_all(CORPUS / "requests")


def response_entries() -> list[Entry]:
    return wire_text.load_all(CORPUS / "responses")


def case_of_request(entry: Entry) -> RequestCase:
    return RequestCase((entry.wire,), "waits" not in entry.flags)


def case_of_response(entry: Entry) -> ResponseCase:
    method = next((flag.encode() for flag in entry.flags if flag.isupper()), b"GET")
    return ResponseCase((method, b"GET", b"GET"), (Answer((entry.wire,), "closes" in entry.flags),))


def random_case(rng: random.Random, requests: list[Entry], responses: list[Entry]) -> Case:
    """Make up a case from the corpus: two in three of them are about requests, if there are any."""
    if requests and rng.random() < 0.66:
        return _random_request(rng, requests)
    return _random_response(rng, responses)


def _random_request(rng: random.Random, entries: list[Entry]) -> RequestCase:
    wire = b"".join(rng.choice(entries).wire for _ in range(rng.choice([1, 1, 1, 2, 3])))
    if rng.random() < 0.95:
        wire = mutate_request(rng, wire)
    if rng.random() < 0.3:
        wire += rng.choice(entries).wire
    return RequestCase(cut(rng, wire), rng.random() < 0.8)


def _random_response(rng: random.Random, entries: list[Entry]) -> ResponseCase:
    count = rng.choice([1, 2, 3])
    methods = tuple(rng.choice([b"GET", b"GET", b"GET", b"HEAD", b"POST"]) for _ in range(count))
    answers = []
    for _ in range(rng.randint(1, count)):
        wire = mutate_response(rng, rng.choice(entries).wire)
        if rng.random() < 0.2:
            wire += rng.choice(entries).wire
        answers.append(Answer(cut(rng, wire), rng.random() < 0.4))
    return ResponseCase(methods, tuple(answers), rng.random() < 0.7)
