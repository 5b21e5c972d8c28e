"""load_config: from a file's name to a whole valid Config, or to every problem of the file at once."""

from __future__ import annotations

import os
import re
import stat
from typing import Any

from minato.config.model import AdminConfig, Config, Limits, Service
from minato.config.nodes import Entry, Node, Scalar, UnusableYaml, compose
from minato.config.problems import Problems
from minato.config.schema import (
    SECTIONS,
    TOP_LISTS,
    TOP_SCALARS,
    Section,
    read_entries,
    read_item,
    read_keys,
    read_list,
    read_section,
)
from minato.config.services import ServicesReader
from minato.config.together import SECTION_CHECKS, check_admin, check_queues, check_sessions
from minato.config.values import network
from minato.errors import ConfigError

MAX_FILE_BYTES = 4 * 1_048_576

# YAML 1.1, 5.1: what may stand in a file. DEL and most of C1 are left out there too.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def load_config(path: str) -> Config:
    """Return the config of the YAML file at ``path``.

    Raises:
        ConfigError: the file cannot be read or is not a valid config; carries every problem in the order of lines.
            Nothing else is raised, whatever the file holds.
    """
    problems = Problems()
    try:
        root = compose(_decode(_read(path)), problems)
        config = _assemble(path, root, problems)
    except UnusableYaml as error:
        problems.add(error.line, "", str(error))
        config = None
    if config is None or problems:
        raise ConfigError(path, problems.in_line_order())
    return config


def _read(path: str) -> bytes:
    """Return the bytes of a regular file of a sensible size."""
    try:
        # A FIFO would hold up a reload for as long as nobody writes to it; O_NONBLOCK does not wait.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UnusableYaml(0, "is not a regular file")
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise UnusableYaml(0, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise UnusableYaml(0, f"is larger than {MAX_FILE_BYTES // 1_048_576} MiB")
    return data


def _decode(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UnusableYaml(line, f"is not UTF-8: the byte 0x{data[error.start]:02x} cannot stand there") from None
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        line = text.count("\n", 0, forbidden.start()) + 1
        raise UnusableYaml(line, f"holds the control character U+{ord(forbidden[0]):04X}")
    return text


def _assemble(path: str, root: Node | None, problems: Problems) -> Config | None:
    """Return the Config of a tree; None, or with problems noted, where it has none."""
    if root is None or (isinstance(root, Scalar) and root.is_null):
        raise UnusableYaml(0, "is empty; a config has at least services")
    before = problems.count
    entries = read_entries(root, "", (*TOP_SCALARS, *SECTIONS, *TOP_LISTS), problems)
    if not entries and problems.count != before:
        return None
    values: dict[str, Any] = read_keys(entries, "", TOP_SCALARS, problems)
    for name, section in SECTIONS.items():
        if name in entries:
            values[name] = _read_section(entries[name], name, section, problems)
    proxies = read_list(entries.get("trusted_proxies"), "trusted_proxies", problems)
    networks = [read_item(item, item_path, network, problems) for item_path, item in proxies]
    services = _read_services(root, entries.get("services"), values.get("limits", Limits()), problems)
    check_admin(entries.get("admin"), values.get("admin", AdminConfig()), services, problems)
    return Config(path, services, trusted_proxies=tuple(filter(None, networks)), **values)


def _read_section(entry: Entry, name: str, section: Section, problems: Problems) -> Any:
    before = problems.count
    value = read_section(entry.value, name, section, problems)
    if problems.count == before and name in SECTION_CHECKS:  # else what is bad stands at its default
        SECTION_CHECKS[name](entry, value, problems)
    return value


def _read_services(root: Node, entry: Entry | None, limits: Limits, problems: Problems) -> tuple[Service, ...]:
    before = problems.count
    items = read_list(entry, "services", problems)
    if not items and problems.count == before:
        line = entry.line if entry else root.line
        problems.add(line, "services", "is empty" if entry else "is missing")
    reader = ServicesReader(problems)
    given = [(item_path, item, reader.read(item, item_path)) for item_path, item in items]
    read = [(item_path, item, service) for item_path, item, service in given if service is not None]
    if not problems:  # else limits may stand at its default
        check_queues(read, limits, problems)
    check_sessions(read, problems)
    return tuple(service for _, _, service in read)
