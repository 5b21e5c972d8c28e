"""One minato and one recording origin for all cases of a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.system.conftest import Instances, module_instances, module_origin
from tests.system.harness import Origin
from tests.wire.recorder import Recorder
from tests.wire.table import Wire

__all__ = ["module_instances", "module_origin"]


@pytest.fixture(scope="module")
def start_wire(module_instances: Instances, module_origin: Callable[..., Origin]) -> Callable[..., Wire]:
    """``start_wire(**sections)`` starts a recorder and a minato in front of it."""

    def start(**sections: Any) -> Wire:
        recorder = Recorder(module_origin)
        sections = {"timeouts": {"response": 3, "read": 3}, "health": {"interval": 600}} | sections
        return Wire(module_instances.start(recorder.origin, service_keys={"retries": 0}, **sections), recorder)

    return start


@pytest.fixture(scope="module")
def wire(start_wire: Callable[..., Wire]) -> Wire:
    return start_wire()
