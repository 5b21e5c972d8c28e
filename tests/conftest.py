"""Settings every suite shares: markers and the profile of the property tests."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "slow: moves hundreds of megabytes or runs for many seconds; part of `make test`"
    )
