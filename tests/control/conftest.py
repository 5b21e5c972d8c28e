"""Instances of the stand-in that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.control.runner import Instance


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
