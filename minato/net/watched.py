"""Upstream connections whose exchanges' ends somebody may wait for; others tell nobody, and pay nothing for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minato.net.upstream import UpstreamConnection


class WatchedConnection(UpstreamConnection):
    """Tells when it is closed. That an exchange ends and leaves it open, ``on_idle`` tells."""

    __slots__ = ("_on_over",)

    def __init__(self, on_over: Callable[[], None], *arguments: Any) -> None:
        """Take what an UpstreamConnection takes.

        Args:
            on_over: called at every close; that of an idle connection means nothing.
            arguments: those of an UpstreamConnection.
        """
        super().__init__(*arguments)
        self._on_over = on_over

    def close(self) -> None:
        super().close()
        self._on_over()
