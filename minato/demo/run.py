"""Runs the demo: finds the shipped config, starts the origins, says what to try."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from minato.config.model import Config
from minato.demo.origins import DemoOrigins
from minato.errors import BootError

_TRIES = (
    ("curl -i {url}", "which upstream answered; again, and it is the other"),
    ("curl -i {url}cached", "a few times: look at Age and Cache-Status (each worker has a cache of its own)"),
    ("curl -N {url}events", "server-sent events, one a second"),
    ("curl -i {url}slow", "takes two seconds"),
    ("curl -d hello {url}", "a request with a body"),
    ("kill -HUP {pid}", "reload the config while any of these runs"),
    ("kill -TERM {pid}", "stop gracefully; Ctrl-C stops at once"),
)


def find_shipped_config() -> str:
    """Return the path of the config that comes with minato: of the checkout, or of the installed package.

    Raises:
        BootError: neither is there.
    """
    package = Path(__file__).resolve().parent.parent
    for path in (package / "config.yaml", package.parent / "config.yaml"):
        if path.is_file():
            return str(path)
    raise BootError("the shipped config.yaml is missing; name one with --config")


def run_demo(config: Config, serve: Callable[[Callable[[], None]], int]) -> int:
    """Run the demo until it is told to stop.

    Args:
        config: whose upstreams the origins play.
        serve: runs minato; takes what to call when it is ready, returns the exit status.

    Raises:
        BootError: a port is taken.
    """
    origins = DemoOrigins(config, os.environ)
    try:
        return serve(lambda: print(_render_hints(_url(config)), flush=True))
    finally:
        origins.stop()


def _render_hints(url: str) -> str:
    tries = [(command.format(url=url, pid=os.getpid()), what) for command, what in _TRIES]
    width = max(len(command) for command, _ in tries)
    lines = [f"  {command:<{width}}  {what}" for command, what in tries]
    return "\n".join(["", f"minato demo: {url} with origins of its own behind it; try", "", *lines, ""])


def _url(config: Config) -> str:
    listen = config.services[0].listen
    host = f"[{listen.host}]" if ":" in listen.host else listen.host or "localhost"
    return f"http://{host}:{listen.port}/"
