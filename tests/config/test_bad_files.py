"""Files that are no config at all: not YAML, not text, not files, or made to exhaust who reads them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minato.config import load_config
from minato.errors import ConfigError

from .samples import GOOD_SERVICE, Complaints, bad

YAML = [
    bad(
        "a tag that would run code",
        "workers: !!python/object/apply:os.system [id]\n",
        '1: the tag "!!python/object/apply:os.system" is not allowed; leave it out',
        "1: workers: expected a single value, got a list",
    ),
    bad(
        "a tag of the core",
        'workers: !!int "4"\n',
        '1: the tag "!!int" is not allowed; leave it out',
        '1: workers: expected a whole number, got the text "4" (leave out the quotes)',
    ),
    bad(
        "two documents",
        GOOD_SERVICE + "---\n" + GOOD_SERVICE,
        "8: a second YAML document begins here; one file holds one config",
    ),
    bad("an alias of nothing", "workers: *n\n", "1: the alias *n has no anchor before it"),
    bad(
        "an alias of itself", "cache: &c\n  ttl: *c\n", "2: the alias *c stands inside what it names, which has no end"
    ),
    bad("a merge of no mapping", "cache:\n  <<: 5\n", "2: << merges mappings, not 5"),
    bad(
        "a value merged in that is bad",
        "cache: &c\n  ttl: 1\nhealth:\n  <<: *c\n",
        "2: health.ttl: unknown key; known here: interval, tcp_timeout, http_timeout, rise, fall, expect, drain, "
        "slow_start",
    ),
    bad("nested too deep", "cache: " + "[" * 40 + "]" * 40, "1: is nested more than 32 levels deep"),
    bad("a million brackets", "[" * 1_000_000, "1: is nested more than 32 levels deep"),
    bad("a million dashes", "- " * 1_000_000, "1: is nested more than 32 levels deep"),
    bad(
        "an anchor bomb",
        "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)),
        "5: holds more than 600,000 keys and values (aliases expanded)",
    ),
    bad(
        "a merge bomb",
        "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: *a{n - 1}, x{n}: 1}}\n" for n in range(1, 2000)),
        "546: holds more than 600,000 keys and values (aliases expanded)",
    ),
]


@pytest.mark.parametrize(("text", "lines"), YAML)
def test_each_trick_of_yaml_is_reported_with_its_line(text: str, lines: list[str], complaints: Complaints) -> None:
    assert complaints(text) == lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "is empty; a config has at least services"),
        (b"# only a comment\n", "is empty; a config has at least services"),
        (b"---\n...\n", "is empty; a config has at least services"),
        (b"~\n", "is empty; a config has at least services"),
        (b"workers: 1\nname: caf\xe9\n", "2: is not UTF-8: the byte 0xe9 cannot stand there"),
        ("workers: 1".encode("utf-16"), "1: is not UTF-8: the byte 0xff cannot stand there"),
        (b"workers: 1\n\nx: \x00\n", "3: holds the control character U+0000"),
        (b"workers: \x1b[31m1\n", "1: holds the control character U+001B"),
        (b"#" * (4 * 1_048_576 + 1), "is larger than 4 MiB"),
    ],
)
def test_a_file_that_cannot_be_read_as_text_is_one_problem(text: bytes, expected: str, complaints: Complaints) -> None:
    [line] = complaints(text)
    assert line == expected


@pytest.mark.parametrize("text", ["a: !%ED%A0%80 1\n", 'a: "\\UFFFFFFFF"\n', 'a: "\\ud800"\n'])
def test_escapes_that_make_no_unicode_text_are_a_problem(text: str, complaints: Complaints) -> None:
    assert complaints(text)


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("workers: 1\ncache: {enabled: true\nservices: []\n", 3, ""),
        ('workers: "1\n', 2, ""),
        ("workers: 1\n  cache: 2\n", 2, ""),
        ("cache:\n\tenabled: true\n", 2, "tab"),
        ("workers: @1\n", 1, ""),
        ("%YAML 7.0\n---\nworkers: 1\n", 1, ""),
    ],
)
def test_a_syntax_error_is_one_line_that_says_where(text: str, line: int, hint: str, complaints: Complaints) -> None:
    [complaint] = complaints(text)
    assert complaint.startswith(f"{line}: is not YAML: ")
    assert hint in complaint


def test_what_is_no_readable_file_is_a_problem_without_a_line(tmp_path: Path) -> None:
    locked = tmp_path / "locked.yaml"
    locked.symlink_to(locked)
    for path, message in [
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "none.yaml", "cannot be read: No such file or directory"),
        (locked, "cannot be read: Too many levels of symbolic links"),
        ("/dev/zero", "is not a regular file"),
        ("c\0.yaml", "cannot be read: embedded null byte"),
        ("", "cannot be read: No such file or directory"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_config(str(path))
        assert str(caught.value) == f"{path}: {message}"


def test_an_unreadable_file_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:  # root, who may run this test, is never refused by the kernel
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("minato.config.load.os.open", refuse)
    with pytest.raises(ConfigError, match=r"c\.yaml: cannot be read: Permission denied$"):
        load_config(str(tmp_path / "c.yaml"))


def test_a_pipe_nobody_writes_to_does_not_hold_up_the_caller(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is not a regular file"):
        load_config(str(tmp_path / "pipe"))
