"""A short slice of `make chaos`: a few seconds of each kind of mischief, and not one request lost."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.chaos.campaign import SCENARIOS
from tests.chaos.report import render_failures
from tests.chaos.rig import run_scenario
from tests.chaos.targets import MinatoTarget

pytestmark = pytest.mark.slow
_SECONDS = 3.0
_LEAST_REQUESTS = 200


@pytest.mark.parametrize("name", ["storm", "alternate", "kill-worker", "kill-master", "upgrade", "origin-resets"])
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    result = asyncio.run(run_scenario(SCENARIOS[name], MinatoTarget, _SECONDS, seed, tmp_path / "chaos"))
    assert result.is_good, render_failures(result)
    assert result.ledger.requests > _LEAST_REQUESTS, render_failures(result)
