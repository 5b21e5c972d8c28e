"""The command line: what it takes, what it refuses, and with which exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minato import __version__, cli

ROOT = Path(__file__).resolve().parents[2]
GOOD = """\
services:
  - {name: "s", listen_port: 18099, hosts: ["http://*/"], upstreams: [{host: "http://127.0.0.1:1"}]}
"""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Stand in for the master: note what it would be given."""
    calls: list[dict[str, object]] = []

    class FakeMaster:
        def __init__(self, config: object, **options: object) -> None:
            calls.append({"config": config, **options})

        def run(self) -> int:
            return 0

    monkeypatch.setattr(cli, "Master", FakeMaster)
    return calls


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return str(path)


@pytest.mark.parametrize("command", [[], ["run"]])
def test_run_is_the_default_and_takes_the_options(
    command: list[str], good: str, served: list[dict[str, object]]
) -> None:
    assert cli.main([*command, "--config", good, "--workers", "4", "--pid-file", "p"]) == 0
    (call,) = served
    assert (call["workers"], call["pid_file"]) == (4, "p")


def test_options_may_stand_before_the_command(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", good, "check"]) == 0
    assert capsys.readouterr().out == f"{good}: ok, 1 services, 1 upstreams\n"


def test_config_defaults_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check"]) == 0
    assert capsys.readouterr().out.startswith("config.yaml: ok")


@pytest.mark.parametrize("command", ["check", "run"])
def test_config_problems_are_one_line_each_and_exit_2(
    command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], served: list[dict[str, object]]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("workers: many\n" + GOOD.replace("18099", "99999"))
    assert cli.main([command, "--config", str(path)]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{path}:1", "workers"],
        [f"{path}:3", "services[0].listen_port"],
    ]
    assert served == []


def test_missing_config_is_exit_2(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--config", str(tmp_path / "none.yaml")]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--workers", "0"],
        ["--workers", "-1"],
        ["--workers", "many"],
        ["--workers", "1e3"],
        ["--workers", "513"],
        ["--workers", "9" * 5000],
        ["--worker", "2"],
        ["--log-level", "loud"],
        ["status"],
        ["run", "run"],
        ["check", "--workers", "2"],
    ],
)
def test_wrong_usage_is_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    assert capsys.readouterr().err.startswith("usage: minato")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"minato {__version__}\n"


def test_script_works_from_any_directory_through_a_link_and_without_the_virtual_environment(
    tmp_path: Path, good: str
) -> None:
    link = tmp_path / "minato"
    link.symlink_to(ROOT / "bin" / "minato")
    done = subprocess.run(
        [sys.executable, str(link), "check", "--config", good],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_closed_standard_descriptors_are_no_trap(good: str) -> None:
    """Whatever is opened first would else be number 2, and be written log lines."""
    script = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from minato import cli
os.close(0); os.close(2)
status = cli.main(["check", "--config", {good!r}])
names = [os.readlink(f"/proc/self/fd/{{fd}}") for fd in (0, 2)]
print(status, *names)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.splitlines()[-1] == "0 /dev/null /dev/null"


@pytest.mark.parametrize(
    "arguments",
    [
        ["purge"],
        ["purge", "--soft"],
        ["purge", "--all", "--workers", "2"],
        ["check", "http://a/"],
        ["run", "--all"],
        ["--tag", "t"],
        ["demo", "--soft"],
    ],
)
def test_purge_needs_something_to_purge_and_no_other_command_takes_it(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2


def test_purge_without_an_admin_api_says_which_key_to_set(good: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["purge", "--all", "--config", good]) == 2
    assert "admin.listen: is off" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["purge", "http://a/", "http://b/", "--soft"], {"url": ["http://a/", "http://b/"], "soft": True}),
        (["purge", "--tag", "t", "http://a/", "--tag", "u"], {"tag": ["t", "u"], "url": ["http://a/"]}),
        (["purge", "--prefix", "http://a/x"], {"prefix": ["http://a/x"]}),
        (["--all", "purge"], {"all": True}),
    ],
)
def test_purge_asks_for_what_it_was_told(
    arguments: list[str], asked: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def post(address: object, path: str, content: object) -> tuple[int, dict[str, object]]:
        calls.append((str(address), path, content))
        return 200, {"purged": 1, "workers": 2}

    monkeypatch.setattr(cli, "post", post)
    config = tmp_path / "admin.yaml"
    config.write_text('admin: {listen: "127.0.0.1:9180"}\n' + GOOD)
    assert cli.main([*arguments, "--config", str(config)]) == 0
    assert calls == [("127.0.0.1:9180", "/purge", asked)]


def test_purge_that_not_every_worker_confirmed_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = {"purged": 1, "workers": 2, "missing": 1, "error": "not all"}
    monkeypatch.setattr(cli, "post", lambda address, path, content: (504, answer))
    config = tmp_path / "admin.yaml"
    config.write_text('admin: {listen: "127.0.0.1:9180"}\n' + GOOD)
    assert cli.main(["purge", "--all", "--config", str(config)]) == 1
    assert tuple(capfd.readouterr()) == ("1 stored responses in 2 workers, 1 missing\n", "minato: not all\n")
