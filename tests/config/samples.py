"""Config text to break, and the form of the tables that say how: a name, the text, the lines a user reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from minato.config import Config

Load = Callable[[str | bytes], Config]
Complaints = Callable[[str | bytes], list[str]]

GOOD_SERVICE = """
services:
  - name: web
    listen_port: 8080
    hosts: ["http://example.com/"]
    upstreams:
      - host: "http://localhost:8001"
"""


def bad(name: str, text: str, *lines: str) -> Any:
    """Return one row of a table. Text without services gets good ones after it: its own mistake stands alone."""
    return pytest.param(with_services(text), list(lines), id=name)


def with_services(text: str) -> str:
    return text if "services:" in text or text.startswith(("-", "~")) else text + GOOD_SERVICE


def service(line: str) -> str:
    """Return a config whose line 7 is the given one, a key of its one service."""
    return (
        "services:\n"
        "  - name: web\n"
        "    listen_port: 8080\n"
        '    hosts: ["http://example.com/"]\n'
        "    upstreams:\n"
        '      - host: "http://localhost:8001"\n'
        f"    {line}\n"
    )


def host(url: str) -> str:
    return f"services:\n- name: web\n  listen_port: 8080\n  hosts:\n  - {url}\n  upstreams: [{{host: http://u:1}}]\n"


def upstream(url: str, rest: str = "") -> str:
    return f"services:\n- name: web\n  listen_port: 8080\n  hosts: [http://e/]\n  upstreams:\n  - host: {url}\n" + (
        f"    {rest}\n" if rest else ""
    )
