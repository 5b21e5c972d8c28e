"""Every key with every kind of nonsense: taken as what it says, or named with its line, path and what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from minato.config.affinity import HashConfig, StickyConfig
from minato.config.schema import SECTIONS, SERVICE_CACHE_SCALARS, SERVICE_SCALARS, SERVICE_SECTIONS, UPSTREAM_KEYS
from minato.config.service_affinity import _HASH_KEYS, _STICKY_KEYS
from minato.errors import ConfigError

from .samples import GOOD_SERVICE, Load, service

# Nothing that any key may be.
STRUCTURES = {"[]": "a list", "[1]": "a list", "{}": "a mapping", "{a: 1}": "a mapping"}
NUMBERS = ["-1", "-0.5", "1e400", ".inf", "-.inf", ".nan", "99999999999999999999999999", '"1"', '""']
REST = ["~", "1:30", "true", "0", "1", "0x10", "1_000", "1.5", "x", "2026-01-01", "off", "'off'", "&a 1"]
REST += ['"\\x00"', '"\\r\\nX: y"']
CAPPED = "limits: {upstream_connections: 1}\n"
ANOTHER = "      - host: http://another\n"


def sections() -> Iterator[tuple[str, str]]:
    """Yield each key's path, and a config with ``VALUE`` where its value is to be."""
    for name, section in SECTIONS.items():
        for key in section.keys:
            yield f"{name}.{key}", f"{name}:\n  {key}: VALUE\n{GOOD_SERVICE}"
    for key in set(SERVICE_SCALARS) - {"name", "listen_port"}:
        yield f"services[0].{key}", service(f"{key}: VALUE")
    for name, section in SERVICE_SECTIONS.items():
        for key in section.keys:
            yield f"services[0].{name}.{key}", CAPPED + service(f"{name}:\n      {key}: VALUE")
    for key in SERVICE_CACHE_SCALARS:
        yield f"services[0].cache.{key}", service(f"cache:\n      {key}: VALUE")
    for key in _HASH_KEYS:
        by = "\n      by: header" if key == "name" else ""
        yield f"services[0].hash.{key}", service(f"balancer: ConsistentHash\n    hash:{by}\n      {key}: VALUE")
    for key in _STICKY_KEYS:
        cookie = "" if key == "cookie" else "\n      cookie: srv"
        yield f"services[0].sticky.{key}", service(f"sticky:{cookie}\n      {key}: VALUE")
    for key in set(UPSTREAM_KEYS) - {"host"}:
        yield f"services[0].upstreams[0].{key}", GOOD_SERVICE + f"        {key}: VALUE\n{ANOTHER}"


KEYS = sorted(sections())


def complaint(load: Load, text: str) -> str:
    """Return the only problem, without the file's name; empty where it loads."""
    try:
        load(text)
    except ConfigError as error:
        return str(error).split("c.yaml:", 1)[1]
    return ""


def test_there_are_all_of_them() -> None:
    assert len(KEYS) > 75
    assert set(_HASH_KEYS) == set(HashConfig.__slots__) and len(_STICKY_KEYS) == len(StickyConfig.__slots__)


@pytest.mark.parametrize(("path", "text"), KEYS, ids=[path for path, _ in KEYS])
def test_key_names_its_line_and_path_and_what_is_wrong(load: Load, path: str, text: str) -> None:
    line = 1 + text[: text.index("VALUE")].count("\n")
    for value in [*STRUCTURES, *NUMBERS, *REST]:
        told = complaint(load, text.replace("VALUE", value))
        if value in STRUCTURES:
            assert told.startswith(f"{line}: {path}: expected a single value, got {STRUCTURES[value]}"), (value, told)
        elif told:
            # What a string cannot even hold is YAML's to say.
            where = re.escape(f"{line}: ") + f"(?:{re.escape(path)}: )?"
            assert re.fullmatch(where + r"[^\n]{10,}", told), (value, told)
        assert "Traceback" not in told and "\r" not in told and "\x00" not in told


def test_number_out_of_its_range_is_refused_and_the_range_told(load: Load) -> None:
    numbers = [(path, text) for path, text in KEYS if " number" in complaint(load, text.replace("VALUE", "x"))]
    assert len(numbers) > 45
    for path, text in numbers:
        for value in NUMBERS:
            assert complaint(load, text.replace("VALUE", value)), (path, value)
        for value, bound in (("-1", "at least"), ("1e15", "at most")):
            told = complaint(load, text.replace("VALUE", value))
            assert bound in told or "whole number" in told or "cannot be" in told, (path, value, told)
