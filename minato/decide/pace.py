"""How slow a peer may be: a credit of seconds that waiting for it uses up and its bytes bring back."""

from __future__ import annotations

from typing import Final

MIN_CREDIT_S: Final = 20.0
"""A peer may always have been this long behind its rate: a mobile client that changes cells, say."""


class Pace:
    """One peer's credit.

    It begins full. A second of waiting for the peer costs a second; as many bytes as its rate says bring one back, up
    to the full credit. So it may pause for as long as that is, again and again, if only it is fast enough on the
    whole; and what it was ahead once buys no long drip later. Time in which nobody waits for it costs nothing.

    Attributes:
        left_s: of the credit, at the last look.
    """

    __slots__ = ("_bytes", "_full_s", "_rate", "_since_s", "left_s")

    def __init__(self, pause_s: float, rate_bytes_per_s: int, total_bytes: int = 0) -> None:
        """Begin with a full credit.

        Args:
            pause_s: the longest pause that is configured; the credit is not below it.
            rate_bytes_per_s: at which it breaks even; 0: any byte fills it.
            total_bytes: as of `wait`, up to now.
        """
        self._full_s = max(pause_s, MIN_CREDIT_S)
        self._rate = rate_bytes_per_s
        self._bytes = total_bytes
        self._since_s: float | None = None
        self.left_s = self._full_s

    def __repr__(self) -> str:
        return f"<Pace {self.left_s:.3g} s left of {self._full_s:g}>"

    def wait(self, now_s: float, total_bytes: int) -> bool:
        """From now on (still) the peer is waited for. ``left_s`` is until when; tell whether any bytes came.

        Args:
            now_s: monotonic second.
            total_bytes: what it has sent or taken up to now, whatever it was waited for.
        """
        self.rest(now_s)
        self._since_s = now_s
        gained = total_bytes - self._bytes
        if gained <= 0:
            return False
        self._bytes = total_bytes
        self.left_s = min(self.left_s + gained / self._rate, self._full_s) if self._rate else self._full_s
        return True

    def rest(self, now_s: float) -> None:
        """From now on it is not the peer that is waited for."""
        if self._since_s is not None:
            self.left_s -= now_s - self._since_s
            self._since_s = None
