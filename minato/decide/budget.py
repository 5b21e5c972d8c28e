"""How many retries a worker may make: a share of its traffic, so that retries never become the storm."""

from __future__ import annotations

import math
from typing import Final

SAVING_S: Final = 10.0
"""What is not used is saved, and fades with this time constant: about ten seconds' worth can be spent at once."""


class RetryBudget:
    """A balance of retries that requests and seconds pay into, and each retry takes one from.

    Of every request comes `share` of a retry, of every second `min_per_s`. What is saved fades, so that the balance
    settles at ten seconds' income: an upstream that dies takes all that it holds with it at once, and that is what the
    savings are for. So in any time retries are at most what was saved at its beginning, plus `share` of its requests,
    plus `min_per_s` of its seconds; and what was saved is at most what came in, of late above all.

    It is one for all services of a worker: what counts requests is the worker's, and no request is counted twice for
    the sake of those that fail.
    """

    __slots__ = ("_balance", "_min_per_s", "_requests", "_share", "_since_s")

    def __init__(self, share: float, min_per_s: float, now_s: float, requests: int = 0) -> None:
        """Begin with the savings of a worker without traffic.

        Args:
            share: of the requests that may be retried on the long run, 0.2 for every fifth.
            min_per_s: retries that are always allowed each second, without any traffic.
            now_s: monotonic second.
            requests: counted before; those bring nothing.
        """
        self._share = share
        self._min_per_s = min_per_s
        self._since_s = now_s
        self._requests = requests
        self._balance = min_per_s * SAVING_S

    def __repr__(self) -> str:
        return f"<RetryBudget {self._balance:.1f} left, {self._share:g} of requests, {self._min_per_s:g}/s>"

    def refill(self, now_s: float, requests: int) -> None:
        """Take in what has come since the last look, as if it had come evenly: to be called about each second.

        Args:
            now_s: monotonic second.
            requests: of this worker so far that went to upstreams, or are about to. It may fall (one turned out to be
                answered otherwise); then nothing comes in before it is above where it was.
        """
        new = max(requests - self._requests, 0)
        elapsed_s = max(now_s - self._since_s, 0.0)
        self._requests += new
        self._since_s += elapsed_s
        income = self._share * new + self._min_per_s * elapsed_s
        fading = elapsed_s / SAVING_S
        if fading < 1e-6:  # nothing fades in ten microseconds, and the quotient below would lose its digits
            self._balance += income
            return
        kept = math.exp(-fading)
        self._balance = self._balance * kept + income * (1.0 - kept) / fading

    def spend(self, now_s: float, requests: int) -> bool:
        """Take one retry from the balance, refilled as by `refill`; tell whether there was one."""
        self.refill(now_s, requests)
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True

    def give_back(self) -> None:
        """The retry that was just paid for was none: there was nobody to ask."""
        self._balance += 1.0
