"""YAML text to a tree of nodes that know their lines; safe for any text: nothing is constructed, nothing recurses.

The events of PyYAML's parser are put together here instead of by its composer, which recurses, merges late and follows
aliases without a bound. A scalar stays text: what it means is for the key it belongs to, not for YAML 1.1's resolver
(which reads ``off`` as false, ``010`` as eight and ``1:30`` as ninety).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from minato.config.problems import BadValue, Problems, shown

MAX_DEPTH = 32
_TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep"
MAX_NODES = 600_000
"""Bound on keys and values after every alias is expanded: 20,000 services, and an end to anchor bombs."""

_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where PyYAML has it: ten times as fast
_MERGE_KEY = "<<"
_CORE_TAG_PREFIX = "tag:yaml.org,2002:"
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(slots=True)
class Scalar:
    """A single value. ``is_plain``: written without quotes, so that it may be a number, a boolean or null."""

    line: int
    text: str
    is_plain: bool

    @property
    def is_null(self) -> bool:
        return self.is_plain and self.text in _NULLS

    @property
    def boolean(self) -> bool | None:
        """True or False where the text is one of YAML's words for it, else None."""
        return _BOOLEANS.get(self.text.lower()) if self.is_plain and len(self.text) <= len("false") else None


@dataclass(slots=True)
class Sequence:
    line: int
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Entry:
    """One ``key: value`` of a mapping; the line is the key's."""

    line: int
    key: str
    value: Node


@dataclass(slots=True)
class Mapping:
    line: int
    entries: list[Entry] = field(default_factory=list)


Node = Scalar | Sequence | Mapping


class UnusableYaml(BadValue):
    """Text no tree can be made of. ``line``: where it went wrong, 0 for the whole file."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def describe(node: Node) -> str:
    """Return what a node is, for messages: ``a list``, ``nothing``, ``the text "abc"``, ``0x1F``."""
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node, Mapping):
        return "a mapping"
    if node.is_null:
        return "nothing"
    return shown(node.text)[1:-1] if node.is_plain else f"the text {shown(node.text)}"


def compose(text: str, problems: Problems) -> Node | None:
    """Return the tree of the one document in ``text``, or None for an empty one.

    Tags and bad merges are reported to ``problems``, as the rest can be read without them.

    Raises:
        UnusableYaml: a syntax error, a second document, an unknown or endless alias, too deep or too many nodes.
    """
    composer = _Composer(problems)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.feed(event)
    except yaml.MarkedYAMLError as error:
        raise UnusableYaml(*_locate(error, text)) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # ValueError: escapes that make no Unicode text ("\\UFFFFFFFF", "!%ED%A0%80"); PyYAML lets those through.
        raise UnusableYaml(0, f"is not YAML: {' '.join(str(error).split())}") from None
    return composer.root


def _locate(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str]:
    """Return the line and the one-line message of a syntax error."""
    line = error.problem_mark.line + 1 if error.problem_mark else 0
    if "nesting depth" in str(error.problem):  # the parser's own bound, which is far beyond ours, since PyYAML 6.0.4
        return line, _TOO_DEEP
    message = f"is not YAML: {error.problem or error.context or 'syntax error'}"
    if error.context and error.problem:
        where = f" that began on line {error.context_mark.line + 1}" if error.context_mark else ""
        message += f" ({error.context}{where})"
    lines = text.split("\n", line)
    if 0 < line <= len(lines) and "\t" in lines[line - 1]:
        message += "; the line holds a tab, and YAML is indented with spaces"
    return line, " ".join(message.split())


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet. ``size``: its nodes so far, aliases expanded."""

    node: Sequence | Mapping
    anchor: str | None
    size: int = 1
    key: Scalar | None = None


class _Composer:
    """Puts events together. ``root`` is the finished tree, None before there is one."""

    __slots__ = ("_anchors", "_documents", "_open", "_problems", "_total", "root")

    def __init__(self, problems: Problems) -> None:
        self.root: Node | None = None
        self._problems = problems
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int] | None] = {}  # None: still open
        self._documents = 0
        self._total = 0

    def feed(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.ScalarEvent):
            self._check_tag(line, event.tag)
            self._finish(Scalar(line, event.value, event.implicit[0]), 1, event.anchor)
        elif isinstance(event, yaml.MappingStartEvent):
            self._begin(Mapping(line), event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._begin(Sequence(line), event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(line, event.anchor or "")
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise UnusableYaml(line, "a second YAML document begins here; one file holds one config")

    def _check_tag(self, line: int, tag: str | None) -> None:
        if tag is not None:
            name = "!!" + tag.removeprefix(_CORE_TAG_PREFIX) if tag.startswith(_CORE_TAG_PREFIX) else tag
            self._problems.add(line, "", f"the tag {shown(name)} is not allowed; leave it out")

    def _begin(self, node: Sequence | Mapping, event: yaml.CollectionStartEvent) -> None:
        # PyYAML gives "!" for a non-specific tag and None for no tag.
        self._check_tag(node.line, event.tag)
        if len(self._open) == MAX_DEPTH:
            raise UnusableYaml(node.line, _TOO_DEEP)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._open.append(_Open(node, event.anchor))

    def _end(self) -> None:
        done = self._open.pop()
        if isinstance(done.node, Mapping):
            self._merge(done.node)
        self._finish(done.node, done.size, done.anchor)

    def _alias(self, line: int, name: str) -> None:
        if name not in self._anchors:
            raise UnusableYaml(line, f"the alias *{shown(name)[1:-1]} has no anchor before it")
        anchored = self._anchors[name]
        if anchored is None:
            raise UnusableYaml(line, f"the alias *{shown(name)[1:-1]} stands inside what it names, which has no end")
        self._total += anchored[1]
        self._finish(*anchored, None)

    def _finish(self, node: Node, size: int, anchor: str | None) -> None:
        """Put a whole node where it belongs."""
        self._total += 1
        if self._total > MAX_NODES:
            raise UnusableYaml(node.line, f"holds more than {MAX_NODES:,} keys and values (aliases expanded)")
        if anchor is not None:
            self._anchors[anchor] = node, size
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.size += size
        if isinstance(parent.node, Sequence):
            parent.node.items.append(node)
        elif parent.key is None:
            if not isinstance(node, Scalar):
                raise UnusableYaml(node.line, f"{describe(node)} cannot be a key; a key is a plain word")
            parent.key = node
        else:
            parent.node.entries.append(Entry(parent.key.line, parent.key.text, node))
            parent.key = None

    def _merge(self, mapping: Mapping) -> None:
        """Replace ``<<: *other`` by the other's entries; the mapping's own keys win, then the first source's."""
        merges = [entry for entry in mapping.entries if entry.key == _MERGE_KEY]
        if not merges:
            return
        mapping.entries = [entry for entry in mapping.entries if entry.key != _MERGE_KEY]
        taken = {entry.key for entry in mapping.entries}
        for merge in merges:
            for source in merge.value.items if isinstance(merge.value, Sequence) else [merge.value]:
                if not isinstance(source, Mapping):
                    self._problems.add(merge.line, "", f"<< merges mappings, not {describe(source)}")
                    continue
                fresh = [entry for entry in source.entries if entry.key not in taken]
                mapping.entries += fresh
                taken.update(entry.key for entry in fresh)
