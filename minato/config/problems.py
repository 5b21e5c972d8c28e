"""Collecting what is wrong with a config: every problem at once, in line order, bounded, fit for one line each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from minato.errors import MinatoError, Problem

MAX_PROBLEMS = 1_000
"""Nobody reads on after that many, and a hostile file shall not fill the memory with them."""

_MAX_SHOWN_CHARS = 60


class BadValue(MinatoError):
    """A value that cannot be used; the message says what is wrong and what would be right."""


class Problems:
    """Problems found so far. Those beyond ``MAX_PROBLEMS`` are only counted."""

    __slots__ = ("_found", "_left_out")

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._left_out = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def count(self) -> int:
        return len(self._found) + self._left_out

    @property
    def is_full(self) -> bool:
        """Whether further problems are only counted, so that wording them is work for nothing."""
        return len(self._found) >= MAX_PROBLEMS

    def add(self, line: int, key_path: str, message: str) -> None:
        """Note one problem. ``line`` is 1-based, 0 for none."""
        if self.is_full:
            self._left_out += 1
        else:
            self._found.append(Problem(line, key_path, message))

    def in_line_order(self) -> tuple[Problem, ...]:
        """Return every problem, those of one line in the order they were found, and a last one that counts the rest."""
        found = sorted(self._found, key=lambda problem: problem.line)
        if self._left_out:
            found.append(Problem(0, "", f"and {self._left_out} more problems"))
        return tuple(found)


def shown(text: str) -> str:
    """Return text from the file fit for a message: in double quotes, shortened, unprintable characters escaped."""
    short = text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "..."
    return '"' + "".join(char if char.isprintable() else ascii(char)[1:-1] for char in short) + '"'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean "workers"?`` for the nearest known word, or the list of them where none is near."""
    names = list(known)
    folded = {name.lower(): name for name in names}
    # difflib is quadratic in the length of what it compares: nothing long is near a known word anyway.
    near = (
        difflib.get_close_matches(word.lower().replace("-", "_"), folded, n=1) if len(word) <= _MAX_SHOWN_CHARS else []
    )
    return f'did you mean "{folded[near[0]]}"?' if near else f"known here: {', '.join(names)}"
