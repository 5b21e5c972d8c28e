"""Lines of the access log: what they say, and that nothing a client sends can forge one."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.config.model import LogFormat
from minato.telemetry.access_format import AccessEntry, make_formatter, shorten

ENTRY = AccessEntry(
    client="192.0.2.7",
    method=b"GET",
    target=b"/a?b=c",
    version=11,
    status=200,
    body_bytes=1234,
    referer=b"http://example.com/",
    user_agent=b"curl/8",
    host=b"example.com:8080",
    duration_s=0.0125,
    upstream="127.0.0.1:9001",
    cache="miss",
    wall_s=1_795_498_894.5,
)
COMBINED = re.compile(rb'[^ ]+ - - \[[^\]"]+\] "[^"]*" \d{3} \d+ "[^"]*" "[^"]*"\n')


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from in_zone(monkeypatch, "CET-1CEST,M3.5.0,M10.5.0/3")


@pytest.fixture
def in_st_johns(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from in_zone(monkeypatch, "NST3:30")


def in_zone(monkeypatch: pytest.MonkeyPatch, zone: str) -> Iterator[None]:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
def test_combined_line_reads_as_apache_and_nginx_write_it() -> None:
    assert make_formatter(LogFormat.COMBINED)(ENTRY) == (
        b'192.0.2.7 - - [24/Nov/2026:06:41:34 +0100] "GET /a?b=c HTTP/1.1" 200 1234 "http://example.com/" "curl/8"\n'
    )


@pytest.mark.usefixtures("in_st_johns")
def test_combined_line_west_of_greenwich_has_a_negative_offset() -> None:
    assert b"[24/Nov/2026:02:11:34 -0330]" in make_formatter(LogFormat.COMBINED)(ENTRY)


@pytest.mark.usefixtures("in_berlin")
def test_combined_stamp_follows_the_second() -> None:
    formatter = make_formatter(LogFormat.COMBINED)
    formatter(ENTRY)
    assert b":06:41:35 " in formatter(dataclasses.replace(ENTRY, wall_s=ENTRY.wall_s + 1))


def test_combined_shows_what_is_missing_as_a_dash() -> None:
    entry = dataclasses.replace(
        ENTRY, client="", method=b"", target=b"", version=0, status=0, referer=b"", user_agent=b""
    )
    line = make_formatter(LogFormat.COMBINED)(entry)
    assert line.startswith(b"- - - [")
    assert line.endswith(b'"-" 000 1234 "-" "-"\n')


def test_combined_escapes_what_could_forge_a_line() -> None:
    entry = dataclasses.replace(ENTRY, target=b'/"\r\n\\', user_agent=b"\x1b[2J\xc3\xa4", referer=b"\x00\x7f")
    line = make_formatter(LogFormat.COMBINED)(entry)
    assert line.endswith(b'"GET /\\x22\\x0D\\x0A\\x5C HTTP/1.1" 200 1234 "\\x00\\x7F" "\\x1B[2J\\xC3\\xA4"\n')


def test_json_line_has_every_key() -> None:
    line = make_formatter(LogFormat.JSON)(dataclasses.replace(ENTRY, failure="upstream reset"))
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "time": "2026-11-24T05:41:34.500Z",
        "client": "192.0.2.7",
        "method": "GET",
        "target": "/a?b=c",
        "version": "HTTP/1.1",
        "status": 200,
        "body_bytes": 1234,
        "duration_ms": 12.5,
        "host": "example.com:8080",
        "referer": "http://example.com/",
        "user_agent": "curl/8",
        "upstream": "127.0.0.1:9001",
        "cache": "miss",
        "failure": "upstream reset",
    }


HOSTILE = st.binary(max_size=80)


@given(method=HOSTILE, target=HOSTILE, referer=HOSTILE, user_agent=HOSTILE, client=st.text(max_size=20))
def test_no_bytes_break_out_of_a_line(
    method: bytes, target: bytes, referer: bytes, user_agent: bytes, client: str
) -> None:
    entry = dataclasses.replace(
        ENTRY, method=method, target=target, referer=referer, user_agent=user_agent, client=client.replace(" ", "")
    )
    assert COMBINED.fullmatch(make_formatter(LogFormat.COMBINED)(entry))
    line = make_formatter(LogFormat.JSON)(entry)
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert json.loads(line)["status"] == 200


@pytest.mark.parametrize("log_format", LogFormat)
@pytest.mark.parametrize("byte", [b"\x00", b"\xff", b'"', b"a"])
def test_shortened_entry_fits_a_pipe_however_it_is_escaped(log_format: LogFormat, byte: bytes) -> None:
    long = byte * 9000
    text = long.decode("latin-1")
    entry = dataclasses.replace(
        ENTRY, method=long, target=long, referer=long, user_agent=long, host=long, client=text, failure=text
    )
    assert len(make_formatter(log_format)(shorten(entry, 64))) <= 4096
