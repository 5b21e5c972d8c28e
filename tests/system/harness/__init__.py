"""What system tests stand on: a runner of minato, scripted origins, a raw client, configs, TLS, measuring."""

from __future__ import annotations

from tests.ports import free_port

from .app import App
from .client import Client, exchange_raw, fetch
from .config import make_config, service
from .origin import Origin, OriginConnection, Request
from .proxy import Minato
from .waiting import wait_until
from .wire import ProtocolViolation, Response, Truncated, request_bytes, response_bytes

__all__ = [
    "App",
    "Client",
    "Minato",
    "Origin",
    "OriginConnection",
    "ProtocolViolation",
    "Request",
    "Response",
    "Truncated",
    "exchange_raw",
    "fetch",
    "free_port",
    "make_config",
    "request_bytes",
    "response_bytes",
    "service",
    "wait_until",
]
