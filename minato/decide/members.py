"""The addresses of one named upstream that may get requests: those of the last answer, and for a while older ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minato.config.model import Upstream
from minato.decide.names import is_name


class Members:
    """Follows the answers for one name.

    An address that is in the answer no more goes on while none of those that are is known to be healthy, but no longer
    than an old answer would have been believed anyway. So a name whose addresses all change never has nobody.
    """

    __slots__ = ("_leaving", "present")

    def __init__(self, present: Sequence[str] = ()) -> None:
        self.present = tuple(present)
        self._leaving: dict[str, float] = {}  # until when, at the latest

    def __repr__(self) -> str:
        leaving = f"; leaving {', '.join(self._leaving)}" if self._leaving else ""
        return f"<Members {', '.join(self.present)}{leaving}>"

    @property
    def is_settled(self) -> bool:
        """Whether nothing is about to leave."""
        return not self._leaving

    @property
    def all(self) -> tuple[str, ...]:
        """All that may get requests."""
        return (*self.present, *self._leaving)

    def take(self, answer: Sequence[str], until_s: float) -> None:
        """Go by this answer from now on; what it does not hold leaves at ``until_s`` at the latest."""
        gone = [address for address in self.present if address not in answer]
        self.present = tuple(answer)
        leaving = {address: due_s for address, due_s in self._leaving.items() if address not in answer}
        self._leaving = leaving | dict.fromkeys(gone, until_s)

    def settle(self, is_up: Callable[[str], bool], mono_s: float) -> None:
        """Let go of what leaves, once one of the present addresses is healthy or the time is up."""
        if any(map(is_up, self.present)):
            self._leaving.clear()
        else:
            self._leaving = {address: due_s for address, due_s in self._leaving.items() if due_s > mono_s}


def split(upstream: Upstream, addresses: Sequence[str]) -> tuple[Upstream, ...]:
    """Return the upstreams that a configured one is: each address of its name with the whole of its weight.

    It stays as it is where it is no name, and where it has no address yet.
    """
    if not addresses or not is_name(upstream.host):
        return (upstream,)
    return tuple(upstream.at(address) for address in addresses)
