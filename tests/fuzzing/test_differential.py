"""A slice of the fuzzer in every run of the tests: a minute over both codecs, half of it from a new seed."""

from __future__ import annotations

import random

import pytest

from tests.fuzzing.campaign import Campaign

pytestmark = pytest.mark.slow
SLICE_S = 15.0


@pytest.mark.parametrize("express", [True, False], ids=["express", "h11"])
@pytest.mark.parametrize("seed", [5, None], ids=["seed 5", "a new seed"])
def test_nobody_reads_random_messages_otherwise_than_minato(express: bool, seed: int | None) -> None:
    campaign = Campaign(random.SystemRandom().randrange(1_000_000) if seed is None else seed)
    campaign.run(express=express, seconds=SLICE_S)
    assert not campaign.found, f"make fuzz ARGS='--seed {campaign.seed}'\n{campaign.found[0]}"
    for doubtful in campaign.doubtful:
        print(doubtful)
    assert len(campaign.doubtful) <= campaign.cases / 1000
    # Neither a rig that answers nothing nor mutations that nothing survives would show anything.
    assert campaign.cases > 500
    assert campaign.cases / 5 < campaign.forwarded < campaign.cases * 4 / 5
