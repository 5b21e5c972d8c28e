"""Issue line 2, config: what `check` and `run` say of bad files, line by line, and that they exit alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .harness.proxy import REPO, run_minato

GOOD = """\
services:
  - name: web
    listen_port: 8080
    hosts: ["http://example.com/"]
    upstreams:
      - host: "http://localhost:8001"
"""


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


BAD = {
    "unknown key": ("wokers: 4\n" + GOOD, [r":1: wokers: .*did you mean.*workers"]),
    "unknown key in a section": ("cache:\n  enabeld: true\n" + GOOD, [r":2: cache\.enabeld: .*did you mean.*enabled"]),
    "unknown key in a service": (
        changed("listen_port", "listen_prot"),
        [r":3: services\[0\]\.listen_prot: .*listen_port"],
    ),
    "unknown key in an upstream": (
        GOOD + "        wieght: 2\n",
        [r":7: services\[0\]\.upstreams\[0\]\.wieght: .*weight"],
    ),
    "duplicate key": (GOOD + "workers: 1\nworkers: 2\n", [r":8: workers: "]),
    "no services": ("workers: 4\n", [r"services"]),
    "empty services": ("services: []\n", [r":1: services: "]),
    "port is no number": (changed("8080", "http"), [r":3: services\[0\]\.listen_port: "]),
    "port too large": (changed("8080", "65536"), [r":3: services\[0\]\.listen_port: "]),
    "port zero": (changed("8080", "0"), [r":3: services\[0\]\.listen_port: "]),
    "port is a boolean": (changed("8080", "true"), [r":3: services\[0\]\.listen_port: "]),
    "hosts is a string": (changed('["http://example.com/"]', "http://example.com/"), [r":4: services\[0\]\.hosts"]),
    "host without scheme": (
        changed("http://example.com/", "example.com"),
        [r":4: services\[0\]\.hosts\[0\]: .*http://"],
    ),
    "host by https": (changed("http://example.com/", "https://example.com/"), [r":4: services\[0\]\.hosts\[0\]: "]),
    "upstream by ftp": (changed("http://localhost", "ftp://localhost"), [r":6: services\[0\]\.upstreams\[0\]\.host: "]),
    "upstream without host": (
        changed('host: "http://localhost:8001"', "weight: 1"),
        [r":6: services\[0\]\.upstreams\[0\]"],
    ),
    "upstream port too large": (changed("8001", "80010"), [r":6: services\[0\]\.upstreams\[0\]\.host: "]),
    "upstream with a user": (
        changed("//localhost", "//me:x@localhost"),
        [r":6: services\[0\]\.upstreams\[0\]\.host: "],
    ),
    "no upstreams": (GOOD[: GOOD.index("    upstreams")], [r":2: services\[0\].*upstreams"]),
    "unknown balancer": (GOOD + "    balancer: Random\n", [r":7: services\[0\]\.balancer: .*RoundRobin"]),
    "weight zero": (GOOD + "        weight: 0\n", [r":7: services\[0\]\.upstreams\[0\]\.weight: "]),
    "negative retries": (GOOD + "    retries: -1\n", [r":7: services\[0\]\.retries: "]),
    "negative timeout": ("timeouts: {connect: -1}\n" + GOOD, [r":1: timeouts\.connect: "]),
    "timeout is text": ("timeouts:\n  read: soon\n" + GOOD, [r":2: timeouts\.read: "]),
    "unknown cache type": ("cache: {type: ARC}\n" + GOOD, [r":1: cache\.type: .*LRU"]),
    "capacity is negative": ("cache:\n  capacity: -5\n" + GOOD, [r":2: cache\.capacity: "]),
    "enabled is a number": ("cache: {enabled: 3}\n" + GOOD, [r":1: cache\.enabled: "]),
    "workers zero": ("workers: 0\n" + GOOD, [r":1: workers: "]),
    "expect is nonsense": ("health: {expect: good}\n" + GOOD, [r":1: health\.expect: "]),
    "log format": ("access_log: {format: xml}\n" + GOOD, [r":1: access_log\.format: "]),
    "admin on a service's address": ('admin: {listen: "127.0.0.1:8080"}\n' + GOOD, [r":1: admin\.listen: .*web"]),
    "admin on a name": ('admin: {listen: "localhost:9180"}\n' + GOOD, [r":1: admin\.listen: .*127\.0\.0\.1:9180"]),
    "trusted proxy is no network": ("trusted_proxies: [here]\n" + GOOD, [r":1: trusted_proxies\[0\]: "]),
    "listen is a name": (GOOD + "    listen: localhost\n", [r":7: services\[0\]\.listen: "]),
    "same rule twice": (
        GOOD + GOOD[len("services:\n") :].replace("name: web", "name: two"),
        [r":9: services\[1\]\.hosts"],
    ),
    "same name twice": (GOOD + GOOD[len("services:\n") :].replace("8080", "8081"), [r":7: services\[1\]\.name: "]),
    "syntax": ("services: [\n", [r":[12]: "]),
    "tab": ("services:\n\t- name: x\n", [r":2: "]),
    "a tag": ("workers: !!python/object/apply:os.getpid []\n" + GOOD, [r":1: "]),
    "empty file": ("", [r"config\.yaml"]),
    "a list": ("- a\n", [r"config\.yaml:1"]),
    "two documents": (GOOD + "---\n" + GOOD, [r":7"]),
    "anchor bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)),
        [r"config\.yaml"],
    ),
    "recursive anchor": ("services: &s [*s]\n", [r"config\.yaml:1"]),
    "deep nesting": ("services: " + "[" * 5000 + "\n", [r"config\.yaml"]),
    "all at once": (
        "wokers: 1\ncache: {type: ARC}\n" + changed("8080", "0").replace("8001", "x"),
        [
            r":1: wokers",
            r":2: cache\.type",
            r":5: services\[0\]\.listen_port",
            r":8: services\[0\]\.upstreams\[0\]\.host",
        ],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_check_exits_2_with_the_line_of_each_problem(tmp_path: Path, name: str) -> None:
    text, expected = BAD[name]
    (tmp_path / "config.yaml").write_text(text)
    result = run_minato("check", "--config", str(tmp_path / "config.yaml"))
    assert result.returncode == 2, result
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if str(tmp_path) in line]
    for pattern in expected:
        assert any(re.search(pattern, line) for line in lines), (pattern, result.stderr)
    assert len(lines) < 40


@pytest.mark.parametrize("name", ["unknown key", "syntax", "empty file", "all at once", "anchor bomb"])
def test_run_says_and_exits_the_same(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.yaml").write_text(BAD[name][0])
    checked = run_minato("check", "--config", str(tmp_path / "config.yaml"))
    ran = run_minato("run", "--config", str(tmp_path / "config.yaml"))
    assert (ran.returncode, ran.stderr) == (checked.returncode, checked.stderr)


@pytest.mark.parametrize("kind", ["missing", "directory", "not utf-8", "huge", "nul"])
def test_what_is_no_text_file_is_a_clear_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.yaml"
    if kind == "directory":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes({"not utf-8": b"a: \xff\xfe\n", "huge": b"# " + b"x" * 20_000_000, "nul": b"a: \0\n"}[kind])
    result = run_minato("check", "--config", str(path))
    assert result.returncode == 2 and str(path) in result.stderr
    assert "Traceback" not in result.stderr and len(result.stderr.splitlines()) == 1


def test_good_config_is_0(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(GOOD)
    assert run_minato("check", cwd=tmp_path).returncode == 0


def test_shipped_config_is_valid() -> None:
    assert run_minato("check", "--config", str(REPO / "config.yaml")).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [["--no-such-option"], ["--workers", "0"], ["--workers", "many"], ["nonsense"], ["--log-level", "loud"]],
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    result = run_minato(*arguments)
    assert result.returncode == 2 and "Traceback" not in result.stderr


def test_help_and_version_are_0() -> None:
    assert run_minato("--help").returncode == 0
    version = run_minato("--version")
    assert version.returncode == 0 and re.search(r"minato \d+\.\d+", version.stdout)
