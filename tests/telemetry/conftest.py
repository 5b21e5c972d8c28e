"""What the telemetry tests share: a logger nobody else has set up, and a stand-in for one module's ``os.write``."""

from __future__ import annotations

import logging
import os
import types
from collections.abc import Callable, Iterator

import pytest

Write = Callable[[int, bytes], int]


@pytest.fixture(autouse=True)
def unset_logger() -> Iterator[None]:
    """Give the test the ``minato`` logger as it is before ``setup_logging``, and the others what they had."""
    logger = logging.getLogger("minato")
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:], logger.level, logger.propagate = [], logging.NOTSET, True
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def replace_write(monkeypatch: pytest.MonkeyPatch) -> Callable[[types.ModuleType, Write], None]:
    """Return what makes one module write through a stand-in; everybody else's ``os.write`` stays."""

    def replace(module: types.ModuleType, write: Write) -> None:
        monkeypatch.setattr(module, "os", types.SimpleNamespace(**vars(os) | {"write": write}))

    return replace
