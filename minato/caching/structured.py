"""Structured fields (RFC 8941): dictionaries, read strictly; one mistake anywhere and the whole field is none."""

from __future__ import annotations

import base64
import binascii
import re

Bare = bool | int | float | bytes
"""The value of a member: a boolean, an integer, a decimal, or the bytes of a string or of a byte sequence."""


class Token(bytes):
    """A token, told apart from a string of the same bytes."""


class InnerList:
    """A list in parentheses; its members were read and are of no interest here."""


Member = Bare | Token | InnerList
Parameters = dict[bytes, Bare | Token]

_KEY = re.compile(rb"[a-z*][a-z0-9_.*-]*")
_NUMBER = re.compile(rb"(-?)(\d{1,15})(?:\.(\d{1,3}))?(?![\d.])")
_STRING = re.compile(rb'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_TOKEN = re.compile(rb"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
_BYTES = re.compile(rb":([A-Za-z0-9+/=]*):")
_BOOLEAN = re.compile(rb"\?([01])")
_ESCAPED = re.compile(rb"\\(.)")
_OWS_COMMA = re.compile(rb"[ \t]*,[ \t]*")
_MAX_WHOLE_DIGITS_OF_DECIMAL = 12


class NotStructured(ValueError):
    """The bytes are no structured field of the kind asked for."""


def parse_dictionary(lines: list[bytes]) -> dict[bytes, tuple[Member, Parameters]]:
    """Return the members of a dictionary in order, each with its parameters (RFC 8941, 4.2.2).

    Args:
        lines: the values of all field lines of that name; they are combined.

    Raises:
        NotStructured: they are no dictionary. An empty one is one.
    """
    reader = _Reader(b", ".join(lines).strip(b" "))
    members: dict[bytes, tuple[Member, Parameters]] = {}
    while not reader.at_end():
        key = reader.take_key()
        value = reader.take_member() if reader.skip(b"=") else True
        members.pop(key, None)  # "its value is replaced", and it moves to the end
        members[key] = (value, reader.take_parameters())
        if reader.at_end():
            break
        reader.take(_OWS_COMMA)
        if reader.at_end():
            raise NotStructured("a trailing comma")
    return members


class _Reader:
    """A position in the bytes of a field."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def at_end(self) -> bool:
        return self._at >= len(self._data)

    def skip(self, byte: bytes) -> bool:
        found = self._data.startswith(byte, self._at)
        self._at += len(byte) if found else 0
        return found

    def take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        match = pattern.match(self._data, self._at)
        if match is None:
            raise NotStructured(f"unexpected bytes at {self._at}")
        self._at = match.end()
        return match

    def take_key(self) -> bytes:
        return self.take(_KEY)[0]

    def take_member(self) -> Member:
        return self._take_inner_list() if self.skip(b"(") else self._take_bare()

    def take_parameters(self) -> Parameters:
        parameters: Parameters = {}
        while self.skip(b";"):
            self._skip_spaces()
            key = self.take_key()
            parameters[key] = self._take_bare() if self.skip(b"=") else True
        return parameters

    def _take_inner_list(self) -> InnerList:
        while True:
            self._skip_spaces()
            if self.skip(b")"):
                return InnerList()
            self._take_bare()
            self.take_parameters()
            if self._data[self._at : self._at + 1] not in (b" ", b")"):
                raise NotStructured("an inner list that does not end")

    def _skip_spaces(self) -> None:
        while self.skip(b" "):
            pass

    def _take_bare(self) -> Bare | Token:
        first = self._data[self._at : self._at + 1]
        if first == b'"':
            return _ESCAPED.sub(rb"\1", self.take(_STRING)[1])
        if first == b"?":
            return self.take(_BOOLEAN)[1] == b"1"
        if first == b":":
            try:
                return base64.b64decode(self.take(_BYTES)[1], validate=True)
            except binascii.Error as error:
                raise NotStructured("a byte sequence that is not in base64") from error
        if first == b"-" or first.isdigit():
            return self._take_number()
        return Token(self.take(_TOKEN)[0])

    def _take_number(self) -> int | float:
        match = self.take(_NUMBER)
        if match[3] is None:
            return int(match[1] + match[2])
        if len(match[2]) > _MAX_WHOLE_DIGITS_OF_DECIMAL:
            raise NotStructured("a decimal that is too long")
        return float(match[0])
