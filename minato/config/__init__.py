"""The config: ``load_config`` and the frozen dataclasses it returns."""

from __future__ import annotations

from minato.config.affinity import HashBy, HashConfig, SameSite, StickyConfig
from minato.config.load import load_config
from minato.config.model import (
    AccessLogConfig,
    AdminConfig,
    BalancerKind,
    CacheConfig,
    CacheKind,
    ClientField,
    Config,
    ForwardedConfig,
    HealthConfig,
    HostRule,
    Limits,
    ListenAddress,
    LogFormat,
    ProxyProtocol,
    QueueConfig,
    RecycleConfig,
    RetryBudgetConfig,
    Service,
    ServiceCacheConfig,
    Timeouts,
    Upstream,
)

__all__ = [
    "AccessLogConfig",
    "AdminConfig",
    "BalancerKind",
    "CacheConfig",
    "CacheKind",
    "ClientField",
    "Config",
    "ForwardedConfig",
    "HashBy",
    "HashConfig",
    "HealthConfig",
    "HostRule",
    "Limits",
    "ListenAddress",
    "LogFormat",
    "ProxyProtocol",
    "QueueConfig",
    "RecycleConfig",
    "RetryBudgetConfig",
    "SameSite",
    "Service",
    "ServiceCacheConfig",
    "StickyConfig",
    "Timeouts",
    "Upstream",
    "load_config",
]
