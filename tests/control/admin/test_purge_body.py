"""The body of POST /purge: what each becomes, and what is said of each that is wrong."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from minato.caching.purge import PurgeKind, PurgeRequest
from minato.control.admin.answer import Refused
from minato.control.admin.connection import MAX_BODY_BYTES
from minato.control.admin.purge_body import MAX_PREFIXES, MAX_TAGS, MAX_URLS, read_purges
from minato.control.channel import Channel, Message, Verb

URL, PREFIX, TAG, ALL = PurgeKind


def read(content: Any) -> list[PurgeRequest]:
    return read_purges(json.dumps(content).encode())


@pytest.mark.parametrize(
    ("content", "purges"),
    [
        ({"url": "http://a.test/x?y=1"}, [PurgeRequest(URL, b"http://a.test/x?y=1")]),
        ({"url": ["http://a/", "http://b/"]}, [PurgeRequest(URL, b"http://a/"), PurgeRequest(URL, b"http://b/")]),
        ({"url": "HTTP://A.Test:8080/X%2f", "soft": True}, [PurgeRequest(URL, b"http://a.test:8080/X%2f", True)]),
        ({"url": "https://a.test"}, [PurgeRequest(URL, b"https://a.test/")]),
        ({"url": "http://a.test?q"}, [PurgeRequest(URL, b"http://a.test/?q")]),
        ({"url": 'http://[::1]:80/"{}|^`\\'}, [PurgeRequest(URL, b'http://[::1]:80/"{}|^`\\')]),
        ({"prefix": "http://a.test"}, [PurgeRequest(PREFIX, b"http://a.test/")]),
        ({"tag": "product-1", "soft": False}, [PurgeRequest(TAG, b"product-1")]),
        ({"tag": ["a", "b", "a"]}, [PurgeRequest(TAG, b"a"), PurgeRequest(TAG, b"b")]),
        (
            {"tag": "t", "prefix": "http://a/p", "url": "http://a/"},
            [PurgeRequest(URL, b"http://a/"), PurgeRequest(PREFIX, b"http://a/p"), PurgeRequest(TAG, b"t")],
        ),
        ({"all": True}, [PurgeRequest(ALL)]),
        ({"all": True, "soft": True}, [PurgeRequest(ALL, soft=True)]),
    ],
)
def test_what_is_asked_for_arrives(content: dict[str, Any], purges: list[PurgeRequest]) -> None:
    assert read(content) == purges


NOT_ABSOLUTE = "is not an absolute URL such as http://example.com/path"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({}, "names nothing to purge"),
        ({"soft": True}, "names nothing to purge"),
        ([], "must be a JSON object"),
        ("all", "must be a JSON object"),
        (None, "must be a JSON object"),
        ({"urls": "http://a/"}, 'unknown key "urls"; did you mean "url"?'),
        ({"all": True, "x": 1}, 'unknown key "x"'),
        ({"all": False}, "all: takes true alone"),
        ({"all": 1}, "all: takes true alone"),
        ({"all": None}, "all: takes true alone"),
        ({"all": True, "tag": "t"}, "all: takes true alone, and nothing beside it but soft"),
        ({"all": True, "soft": "yes"}, "soft: expected true or false"),
        ({"tag": "t", "soft": None}, "soft: expected true or false"),
        ({"tag": "t", "soft": 0}, "soft: expected true or false"),
        ({"url": None}, "url: expected a string or a list of strings"),
        ({"url": 1}, "url: expected a string or a list of strings"),
        ({"url": []}, "url: expected a string or a list of strings"),
        ({"url": ""}, "none of them empty"),
        ({"url": ["http://a/", 2]}, "url: expected a string or a list of strings"),
        ({"prefix": {"a": "b"}}, "prefix: expected a string or a list of strings"),
        ({"tag": [["a"]]}, "tag: expected a string or a list of strings"),
        ({"url": "/path"}, f'url: "/path" {NOT_ABSOLUTE}'),
        ({"url": "a.test/path"}, NOT_ABSOLUTE),
        ({"url": "//a.test/path"}, NOT_ABSOLUTE),
        ({"url": "ftp://a.test/"}, NOT_ABSOLUTE),
        ({"url": "http:///path"}, NOT_ABSOLUTE),
        ({"url": "http://a.test/#x"}, NOT_ABSOLUTE),
        ({"url": "http://me@a.test/"}, NOT_ABSOLUTE),
        ({"url": "http://a.test/a b"}, NOT_ABSOLUTE),
        ({"url": "http://a.test/\u00e4"}, NOT_ABSOLUTE),
        ({"url": "http://a.test/x\n"}, NOT_ABSOLUTE),
        ({"url": "http://a.test/\ud800"}, NOT_ABSOLUTE),
        ({"url": "http://a.test\\@b/"}, NOT_ABSOLUTE),
        ({"url": "http://\u00e4/"}, "has no valid host"),
        ({"url": "http://a b/"}, "has no valid host"),
        ({"url": "http://a:99999/"}, "has no valid host"),
        ({"prefix": "http://"}, NOT_ABSOLUTE),
        ({"tag": "a,b"}, 'tag: "a,b" is none'),
        ({"tag": "a b"}, 'tag: "a b" is none'),
        ({"tag": "\u00e4"}, "is none"),
        ({"tag": "t" * 257}, "256 characters at the most"),
        ({"tag": ["t"] * (MAX_TAGS + 1)}, "tag: 257 are more than one request may name (256)"),
        ({"url": ["http://a/"] * (MAX_URLS + 1)}, "url: 65 are more than one request may name (64)"),
        ({"prefix": ["http://a/"] * (MAX_PREFIXES + 1)}, "17 are more than one request may name (16)"),
    ],
)
def test_what_is_wrong_is_named(content: Any, error: str) -> None:
    with pytest.raises(Refused) as refused:
        read(content)
    assert refused.value.answer.status == 400
    assert error in str(refused.value.answer.content["error"])


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the body is not JSON"),
        (b"all=true", "the body is not JSON"),
        (b'{"all": true', "the body is not JSON"),
        (b'{"all": true} x', "the body is not JSON"),
        (b'{"all": tru\xff}', "the body is not JSON"),
        (b'\xef\xbb\xbf{"all": true}', "the body is not JSON"),
        (b'{"tag": "a", "tag": "b"}', "a key is given twice"),
        (b'{"soft": NaN}', "NaN is no JSON"),
        (b'{"soft": ' + b"9" * 10_000 + b"}", "the body is not JSON"),
        (b"[" * MAX_BODY_BYTES, "too deeply nested"),
        (b'{"tag":' * 7_000, "too deeply nested"),
    ],
)
def test_what_is_not_json_is_refused(body: bytes, error: str) -> None:
    with pytest.raises(Refused) as refused:
        read_purges(body)
    assert refused.value.answer.status == 400
    assert error in str(refused.value.answer.content["error"])


@given(st.binary(max_size=200) | st.text().map(lambda text: json.dumps({"url": text, "tag": text}).encode()))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        read_purges(body)
    except Refused as refused:
        assert refused.answer.status == 400


@pytest.mark.parametrize("char", ['"', "\\", "x"])
def test_largest_purge_fits_into_one_message_to_a_worker(char: str) -> None:
    tags = [f"{i}" for i in range(MAX_TAGS)]
    prefixes = [f"http://a/{i}" for i in range(MAX_PREFIXES)]
    content: dict[str, Any] = {"soft": False, "tag": tags, "prefix": prefixes, "url": []}
    used = len(json.dumps(content, separators=(",", ":")))
    size = (MAX_BODY_BYTES - used) // MAX_URLS - 3
    content["url"] = [f"http://a?{i:03}".ljust(size // len(json.dumps(char)[1:-1]), char) for i in range(MAX_URLS)]
    body = json.dumps(content, separators=(",", ":")).encode()
    assert len(body) <= MAX_BODY_BYTES
    ours, theirs = Channel.pair()
    message = Message(Verb.PURGE, serial=2**60, purges=tuple(read_purges(body)))
    assert ours.send(message)
    assert theirs.receive() == message
    ours.close()
    theirs.close()
