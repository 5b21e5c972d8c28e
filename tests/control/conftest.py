"""Instances of the stand-in that end with their test, and the plain one that most tests begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.control.health_bench import Bench
from tests.control.runner import Instance, write_config
from tests.ports import free_port


@pytest.fixture
def start() -> Iterator[Callable[..., Instance]]:
    """A function that starts an instance with a config file and further arguments."""
    instances: list[Instance] = []

    def start_instance(config: Path, *args: str, env: dict[str, str] | None = None) -> Instance:
        instances.append(Instance(config, *args, env=env))
        return instances[-1]

    yield start_instance
    for instance in instances:
        instance.stop()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


@pytest.fixture
def extra() -> str:
    """What the config says besides; for test modules to override."""
    return ""


@pytest.fixture
def port(config: Path, extra: str) -> int:
    """The port of the config's one service; the config is written."""
    port = free_port()
    write_config(config, port, extra=extra)
    return port


@pytest.fixture
def minato(start: Callable[..., Instance], config: Path, port: int) -> Instance:
    instance = start(config)
    instance.wait_ready()
    return instance


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)
