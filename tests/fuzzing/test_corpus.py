"""The corpus through both codecs: what is expected of each entry, and that nobody reads otherwise than minato."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzzing import wire_text
from tests.fuzzing.cases import case_of_request, case_of_response, request_entries, response_entries
from tests.fuzzing.plain_reader import read_responses
from tests.fuzzing.rig import Rig, Seen
from tests.fuzzing.verdicts import judge, methods_of, read_as_minato
from tests.fuzzing.wire_text import Entry

REQUESTS, RESPONSES = request_entries(), response_entries()


@pytest.fixture(scope="module", params=[True, False], ids=["express", "h11"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with Rig(express=request.param) as rig:
        yield rig


def statuses_of(seen: Seen, wire: bytes) -> list[str]:
    """Return the statuses of the final responses to a client's bytes."""
    methods = methods_of(read_as_minato(wire), seen.client)
    return [str(response.start[0]) for response in read_responses(seen.client, methods, ends=True).final]


def is_expected(words: list[str], expected: tuple[str, ...]) -> bool:
    """Whether each word is the one expected, or one of several with slashes between them."""
    return len(words) == len(expected) and all(
        word in allowed.split("/") for word, allowed in zip(words, expected, strict=True)
    )


@pytest.mark.parametrize("entry", REQUESTS, ids=lambda entry: entry.name)
def test_requests_are_read_in_one_way_by_all(rig: Rig, entry: Entry) -> None:
    seen = rig.run(case_of_request(entry))
    assert judge(seen) == []
    if entry.expected is not None:
        assert is_expected(statuses_of(seen, entry.wire), entry.expected)


@pytest.mark.parametrize("entry", RESPONSES, ids=lambda entry: entry.name)
def test_responses_are_read_in_one_way_by_all(rig: Rig, entry: Entry) -> None:
    case = case_of_response(entry)
    seen = rig.run(case)
    assert judge(seen) == []
    if entry.expected is not None:
        first = read_responses(seen.client, case.methods, ends=True).final[0]
        assert is_expected([str(first.start[0]), *([] if first.complete else ["cut"])], entry.expected)


@pytest.mark.parametrize("express", [True, False], ids=["express", "h11"])
def test_stored_responses_are_read_in_one_way_by_all(express: bool) -> None:
    with Rig(express=express, cache=True) as rig:
        for entry in RESPONSES:
            seen = rig.run(case_of_response(entry))
            assert judge(seen) == [], entry.name
            assert judge(rig.repeat(seen)) == [], entry.name


@pytest.mark.parametrize("entry", [*REQUESTS, *RESPONSES], ids=lambda entry: entry.name)
def test_the_text_of_an_entry_says_its_bytes(entry: Entry) -> None:
    text = wire_text.dump(entry.wire)
    assert text.isascii()
    assert not any(line.startswith(("#", "==")) or line.endswith(" ") for line in text.split("\n"))
    assert wire_text.parse(text.replace("\n", "")) == entry.wire


def test_no_two_entries_have_one_name() -> None:
    for entries in (REQUESTS, RESPONSES):
        names = [entry.name for entry in entries]
        assert len(set(names)) == len(names) > 60
