r"""The corpus's text: bytes of the wire in a form that people read and ``git diff`` shows.

An entry begins with ``== name [flags] -> expected``; lines that begin with ``#`` say why it is there. The rest is the
wire: a physical line's end means nothing, ``\r``, ``\n``, ``\t``, ``\\`` and ``\x00`` mean one byte each, and
``\{a*500}`` means 500 times that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_HEADING = re.compile(r"== (?P<name>[^\[\]>]+?)(?: \[(?P<flags>[^\]]*)\])?(?: -> (?P<expected>.+))?")
_ESCAPE = re.compile(r"\\(?:([rnt\\])|x([0-9a-f]{2})|\{(.+?)\*([0-9]+)\})")
_NAMED = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}
_MIN_REPEATS = 16
_REPEATED = re.compile(rb"([0-9A-Za-z])\1{%d,}" % (_MIN_REPEATS - 1))


@dataclass(frozen=True)
class Entry:
    """One input: ``expected`` are the words behind the arrow, None where only the comparison is asked for."""

    name: str
    wire: bytes
    flags: frozenset[str] = frozenset()
    expected: tuple[str, ...] | None = None


def load(path: Path) -> Iterator[Entry]:
    """Yield the entries of a file."""
    heading: re.Match[str] | None = None
    lines: list[str] = []
    for line in [*path.read_text("ascii").splitlines(), "== end"]:
        if not line.startswith("== "):
            if line and not line.startswith("#"):
                lines.append(line)
            continue
        if heading is not None:
            yield _entry(path, heading, lines)
        heading, lines = _HEADING.fullmatch(line), []
        assert heading is not None, f"{path}: {line}"


def load_all(directory: Path) -> list[Entry]:
    """Return the entries of every file of a directory, in a fixed order."""
    return [entry for path in sorted(directory.glob("*.txt")) for entry in load(path)]


def parse(text: str) -> bytes:
    """Return the bytes that a text without line ends stands for."""
    wire, at = b"", 0
    for match in _ESCAPE.finditer(text):
        wire += text[at : match.start()].encode("ascii")
        named, hexadecimal, unit, count = match.groups()
        if named:
            wire += _NAMED[named]
        elif hexadecimal:
            wire += bytes([int(hexadecimal, 16)])
        else:
            wire += parse(unit) * int(count)
        at = match.end()
    return wire + text[at:].encode("ascii")


def dump(wire: bytes) -> str:
    """Return the text that stands for those bytes, a physical line for each line of the wire."""
    return "\n".join(_dump_line(line) for line in re.findall(rb"[^\n]*\n|[^\n]+", wire))


def _dump_line(line: bytes) -> str:
    text, at = "", 0
    for match in _REPEATED.finditer(line):
        text += _escape(line[at : match.start()]) + f"\\{{{match[1].decode()}*{len(match[0])}}}"
        at = match.end()
    text += _escape(line[at:])
    if text[:1] in ("#", "="):
        text = f"\\x{ord(text[0]):02x}{text[1:]}"
    return text[:-1] + "\\x20" if text.endswith(" ") else text


def _escape(data: bytes) -> str:
    named = {value[0]: f"\\{key}" for key, value in _NAMED.items()}
    return "".join(named.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}") for byte in data)


def _entry(path: Path, heading: re.Match[str], lines: Iterable[str]) -> Entry:
    expected = heading["expected"]
    return Entry(
        f"{path.stem}: {heading['name']}",
        parse("".join(lines)),
        frozenset((heading["flags"] or "").split()),
        tuple(expected.split()) if expected else None,
    )
