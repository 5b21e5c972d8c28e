"""What must hold of every case: minato and every reader see the same messages, on both sides, in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from minato.config.model import Limits
from minato.protocol.codec import Signal
from minato.protocol.guard import Malformed
from minato.protocol.h11_codec import H11ServerCodec
from tests.fuzzing import h11_reader, llhttp_reader, plain_reader
from tests.fuzzing.cases import ID_PLACE, RequestCase, ResponseCase
from tests.fuzzing.messages import Message, Reading
from tests.fuzzing.rig import Seen

_ID = re.compile(rb"9[0-9]{5}")
_UPGRADE_WITH_BODY = "an upgrade with a body"
# RFC 9112, 7.1.1: BWS around what an extension is made of MUST be parsed; llhttp refuses it.
_BAD_SPACE = "Invalid character in chunk extensions"
_SPACED_EXTENSION = re.compile(rb"(?:^|\r\n)[0-9A-Fa-f]+;[^\r\n]*[ \t]")
# What others refuse of requests, and the standard does not.
_NARROWER = (
    "Invalid method",  # RFC 9110, 9.1: any token may be one
    "Expected space after method",  # the same
    "Invalid HTTP version",  # RFC 9110, 2.5: a higher minor version is read as the highest that is known
    "no request line received",  # RFC 9112, 2.2: an empty line in front SHOULD be ignored
    _UPGRADE_WITH_BODY,  # RFC 9110, 7.8: a server may ignore Upgrade; minato does, where there is a body
    "Data after `Connection: close`",  # llhttp takes Proxy-Connection for Connection, which is in no standard
    "Request has invalid `Transfer-Encoding`",  # RFC 9110, 5.5: a tab behind the value is no part of it
)
_OWN = frozenset([400, 404, 405, 408, 413, 414, 417, 431, 501, 502, 503, 504, 505, 508])
Readers = dict[str, Callable[..., Reading]]
REQUEST_READERS: Readers = {"llhttp": llhttp_reader.read_requests, "h11": h11_reader.read_requests}
RESPONSE_READERS: Readers = {"llhttp": llhttp_reader.read_responses, "h11": h11_reader.read_responses}


def judge(seen: Seen) -> list[str]:
    """Return what is wrong, one line for each; empty where all is well."""
    wrong = [f"trouble: {text}" for text in seen.troubles]
    wrong += [line for upstream in seen.upstreams for line in _judge_upstream_bytes(upstream.received, upstream.ended)]
    if isinstance(seen.case, RequestCase):
        wrong += _judge_requests(seen, seen.case)
    else:
        wrong += _judge_responses(seen, seen.case)
    return wrong


# -- bytes that minato sent


def _judge_upstream_bytes(received: bytes, ended: bool) -> Iterator[str]:
    plain = plain_reader.read_requests(received)
    if plain.error:
        yield f"upstream bytes are not canonical: {plain.error}"
    if any(not message.complete for message in plain.messages) and not ended:
        yield f"a request was left unfinished on a connection that stays: {plain}"
    yield from _compare("h11 of the upstream bytes", plain, h11_reader.read_requests(received))
    plain, received = _with_known_methods(plain, received)
    yield from _compare("llhttp of the upstream bytes", plain, llhttp_reader.read_requests(received))


def _with_known_methods(plain: Reading, received: bytes) -> tuple[Reading, bytes]:
    """Return the same requests with POST for each method that llhttp does not know."""
    messages = []
    for message in reversed(plain.messages):
        method, *rest = message.start
        is_known = not rest or method in llhttp_reader.METHODS
        if not is_known:
            assert isinstance(method, bytes)
            received = received[: message.at] + b"POST" + received[message.at + len(method) :]
        messages.insert(0, message if is_known else replace(message, start=(b"POST", *rest)))
    return Reading(messages, plain.error), received


def _judge_client_bytes(seen: Seen, methods: Sequence[bytes]) -> Iterator[str]:
    plain = plain_reader.read_responses(seen.client, methods, ends=True)
    if plain.error:
        yield f"client bytes are not canonical: {plain.error}"
    for name, read in RESPONSE_READERS.items():
        yield from _compare(f"{name} of the client bytes", plain, read(seen.client, methods, ends=True))


def _compare(what: str, plain: Reading, other: Reading) -> Iterator[str]:
    """Yield where another reader reads otherwise; a message that is cut is compared by its head, if that is whole."""
    if other.error.startswith(_UPGRADE_WITH_BODY):
        # http-parser's own rule, not that of RFC 9110: compare up to that head.
        count = len(other.messages)
        plain = Reading([*plain.messages[: count - 1], replace(plain.messages[count - 1], body=b"", complete=False)])
        other = Reading(other.messages)
    if other.error and not plain.error:
        yield f"{what}: {other.error}"
    ours = [message for message in plain.messages if message.complete]
    theirs = other.complete
    if ours != theirs:
        yield f"{what}: {theirs} instead of {ours}"


# -- requests: what minato believed, what the upstream got, what others make of the client's bytes


def read_as_minato(wire: bytes) -> Reading:
    """Return what minato's own general codec makes of a client's bytes."""
    codec, reading = H11ServerCodec(Limits()), Reading([])
    codec.feed(wire)
    try:
        while True:
            rest = wire[len(wire) - codec.buffered_bytes :]
            event = codec.next_event()
            if event is Signal.NEED_DATA:
                break
            if event is Signal.END:
                reading.messages[-1].complete = True
            elif isinstance(event, bytes):
                reading.messages[-1].body += event
            else:
                reading.messages.append(Message((event.method, event.path), fields=list(event.fields)))
    except Malformed as error:
        reading.error = f"{error.status} {error.reason}"
    reading.rest = rest
    return reading


def methods_of(believed: Reading, client: bytes) -> list[bytes]:
    """Return the methods of what the client got responses to, that of a refused request included.

    Whether a refusal of HEAD has a body is for minato to decide: it may have refused the line that says HEAD.
    """
    methods = [bytes(message.start[0]) for message in believed.messages]  # type: ignore[arg-type]
    if believed.rest.lstrip(b"\r\n").startswith(b"HEAD "):
        plain = plain_reader.read_responses(client, methods, ends=True)
        if not all(message.complete for message in plain.messages):
            methods.append(b"HEAD")
    return methods


def _ends_here(believed: Reading, number: int) -> bool:
    """Tell whether minato answers that request itself: an OPTIONS that may go no further (RFC 9110, 7.6.2)."""
    if number >= len(believed.messages):
        return False
    message = believed.messages[number]
    hops = [value for name, value in message.fields if name == b"max-forwards"]
    return message.start[0] == b"OPTIONS" and len(hops) == 1 and hops[0].isdigit() and int(hops[0]) == 0


def _judge_requests(seen: Seen, case: RequestCase) -> Iterator[str]:
    believed = read_as_minato(case.wire)
    methods = methods_of(believed, seen.client)
    yield from _judge_client_bytes(seen, methods)
    responses = plain_reader.read_responses(seen.client, methods, ends=True).final
    forwarded = {
        b"%d/%d" % (upstream.number, number): message
        for upstream in seen.upstreams
        for number, message in enumerate(plain_reader.read_requests(upstream.received).complete, 1)
    }
    due = len(believed.messages) + bool(believed.error) + 1
    if len(responses) > due:
        yield f"{len(responses)} responses to {believed}"
    for number, response in enumerate(responses):
        if not response.complete:
            yield f"response {number} is cut, and the origin cut none: {response}"
        mark = response.get(b"x-seen")
        if mark is None:
            if response.start[0] not in _OWN and not _ends_here(believed, number):
                yield f"response {number} is of no request at all: {response}"
            continue
        request = forwarded.pop(mark, None)
        if request is None:
            yield f"response {number} ({mark!r}) answers a request that the upstream did not get, or answered twice"
        elif number >= len(believed.messages) or request != believed.messages[number]:
            yield f"the upstream got {request} as number {number} of {believed}"
    if forwarded:
        yield f"requests whose responses the client did not get: {forwarded}"
    yield from _judge_ending(responses, len(believed.complete))
    yield from _judge_other_readers(case.wire, believed, responses)


def _judge_other_readers(wire: bytes, believed: Reading, responses: list[Message]) -> Iterator[str]:
    """What minato forwarded, another server in its place must not have read with other boundaries."""
    accepted = sum(1 for _, response in zip(believed.messages, responses, strict=False) if response.get(b"x-seen"))
    for name, read in REQUEST_READERS.items():
        reading = read(wire)
        for ours, theirs in zip(believed.messages[:accepted], reading.complete, strict=False):
            if (ours.start[0], ours.body) != (theirs.start[0], theirs.body):
                yield f"{name} reads the client's bytes otherwise: {theirs} instead of {ours}"
                break
        is_narrower = any(reason in reading.error for reason in _NARROWER)
        is_narrower = is_narrower or (_BAD_SPACE in reading.error and _SPACED_EXTENSION.search(wire) is not None)
        if len(reading.complete) < accepted and reading.error and not is_narrower:
            yield f"{name} refuses what was forwarded: {reading.error}"


# -- responses: the client gets what the origin said, or sees that it did not


def _judge_responses(seen: Seen, case: ResponseCase) -> Iterator[str]:
    yield from _judge_client_bytes(seen, case.methods)
    responses = plain_reader.read_responses(seen.client, case.methods, ends=True).final
    if len(responses) > len(case.methods):
        yield f"{len(responses)} responses to {len(case.methods)} requests"
    yield from _judge_ending(responses, len(case.methods))
    for own_id, method, response in zip(seen.ids, case.methods, responses, strict=False):
        where = b" ".join([response.body, *(value for _, value in response.fields)])
        others = {found for found in _ID.findall(where) if found in seen.ids and found != own_id}
        if others:
            yield f"the response to {own_id!r} holds bytes of that to {others}"
        if response.complete and response.start[0] != 101 and not _is_own(response):
            yield from _judge_faithful(own_id, method, response, seen)


def _is_own(response: Message) -> bool:
    """Whether it is an answer of minato's, not of an upstream."""
    return response.start[0] in _OWN and response.get(b"via") is None


def _judge_faithful(own_id: bytes, method: bytes, response: Message, seen: Seen) -> Iterator[str]:
    """A whole response must be one that the origin gave to this request (perhaps for another client, or to a GET what a
    HEAD is answered with), as others would have read it, too."""
    given = seen.given.get(own_id, [])
    if not given:
        yield f"a response to {own_id!r}, which no origin was asked for: {response}"
        return
    if response.start == (205,) and not response.body:
        return  # RFC 9110, 15.3.6: it has no content; whether to drop what an origin sends all the same is open
    for name, read in RESPONSE_READERS.items():
        firsts, errors = [], []
        for _, answer in given:
            wire = answer.wire.replace(ID_PLACE, own_id)
            wire = llhttp_reader.in_its_terms(wire) if name == "llhttp" else wire
            reading = read(wire, [method], ends=answer.closes)
            firsts.append(next(iter(reading.final), None))
            errors.append(reading.error)
        if any(_BAD_SPACE in error for error in errors) and any(_SPACED_EXTENSION.search(one.wire) for _, one in given):
            continue
        if not any(first is not None and first.complete and first == response for first in firsts):
            yield f"{name} reads the origin's bytes otherwise: {firsts} instead of {response}"


def _judge_ending(responses: list[Message], due: int) -> Iterator[str]:
    """Whoever gets fewer responses than it asked for must see that the connection ended before its time."""
    if len(responses) >= due:
        return
    if not responses:
        yield f"nothing at all is answered to {due} requests"
        return
    last = responses[-1]
    closes = (last.get(b"connection") or b"").lower() == b"close"
    if last.complete and not closes and last.start[0] != 101:
        yield f"{due - len(responses)} requests are not answered, and nothing said so"
