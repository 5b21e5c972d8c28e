"""Settings every suite shares: property tests have no deadline per example, for no test asserts an absolute speed."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("minato", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("minato")
