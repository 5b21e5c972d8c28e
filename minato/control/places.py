"""What the upstreams of one generation are right now: their addresses, and the columns of its board that they have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from minato.config.model import Config, Upstream
from minato.decide.columns import Columns
from minato.decide.members import Members, split
from minato.decide.names import is_name
from minato.net.resolve import ResolvedAddress, resolve_numeric, with_port

AddressesOf = Callable[[str], tuple[str, ...]]

# Columns to spare on a board with names: room for every name to change all its addresses at once, and again while
# long exchanges hold the columns of the old ones: one that moves each minute does so for four hours before a stream
# that it left behind keeps it from another address. A column takes 48 bytes in each row: 12 KiB for each worker.
SPARE_COLUMNS = 256
SPARE_FOR_EACH = 2
MAX_SPARE_COLUMNS = 2_048
# What an address and its brackets add to a key, in JSON.
ADDRESS_BYTES = 64


class Places:
    """The upstreams of one generation, by Upstream.key as configured; those that are names change.

    Attributes:
        hosts: the hosts that somebody has to be asked for.
        edition: of the answers that it goes by.
        is_short: whether an address gets no requests because the board has no column for it.
        is_starved: whether there is such a name of which no other address of the newest answer is healthy.
    """

    def __init__(self, config: Config, addresses_of: AddressesOf, edition: int = 0) -> None:
        self.edition = edition
        self.is_short = self.is_starved = False
        self._upstreams = {upstream.key: upstream for service in config.services for upstream in service.upstreams}
        self.hosts = {one.host for one in self._upstreams.values() if resolve_numeric(one.host, one.port) is None}
        self._addresses = {
            key: addresses_of(one.host) if one.host in self.hosts else (one.host,)
            for key, one in self._upstreams.items()
        }
        self._members = {
            key: Members(self._addresses[key]) for key, one in self._upstreams.items() if is_name(one.host)
        }
        self.keys = [member.key for member, _ in self.members()]
        self.spare = self._count_spare()
        self.key_bytes = max((len(json.dumps(key)) for key in self._members), default=0) + ADDRESS_BYTES
        self._columns = Columns(self.keys, len(self.keys) + self.spare)

    def __repr__(self) -> str:
        return f"<Places {len(self._members)} names, {self._columns!r}>"

    @property
    def is_settled(self) -> bool:
        """Whether nothing is to be done before there are other answers."""
        return not self.is_short and all(members.is_settled for members in self._members.values())

    @property
    def columns(self) -> dict[str, int]:
        """The columns of the board, by the key of the single address where there is one."""
        return self._columns.by_key

    def addresses(self) -> dict[str, tuple[ResolvedAddress, ...]]:
        """Return the socket addresses of all upstreams."""
        return {key: with_port(self._addresses[key], one.port) for key, one in self._upstreams.items()}

    def members(self) -> Iterable[tuple[Upstream, tuple[ResolvedAddress, ...]]]:
        """Yield each upstream that is probed and balanced on its own, with what to connect to."""
        for key, upstream in self._upstreams.items():
            addresses = self._addresses[key]
            for member in split(upstream, addresses):
                yield member, with_port([member.address] if member.address else addresses, upstream.port)

    def members_of(self, key: str) -> tuple[Upstream, ...]:
        """Return the upstreams that a configured one is."""
        return split(self._upstreams[key], self._addresses[key])

    def placed(self, key: str) -> tuple[tuple[str, int], ...]:
        """Return the addresses of a name with their columns."""
        upstream = self._upstreams[key]
        return tuple((address, self.columns[upstream.at(address).key]) for address in self._addresses[key])

    def follow(
        self,
        addresses_of: AddressesOf,
        edition: int,
        *,
        until_s: float,
        mono_s: float,
        is_up: Callable[[int], bool],
        set_key: Callable[[int, str], None],
    ) -> list[str]:
        """Go by the newest answers.

        Args:
            addresses_of: returns what a host is by now.
            edition: of the answers.
            until_s: when those that are in no answer any more leave, at the latest.
            mono_s: now.
            is_up: tells whether the upstream in a column is healthy.
            set_key: called where a column goes to an upstream, or is its own again.

        Returns:
            The keys of the names whose addresses have changed.
        """
        self.edition = edition
        self.is_short = self.is_starved = False
        changed = []
        for key, members in self._members.items():
            upstream = self._upstreams[key]
            answer = addresses_of(upstream.host)
            if answer and answer != members.present:
                members.take(answer, until_s)
            if not members.is_settled:
                members.settle(lambda address, of=upstream: self._is_up(of.at(address).key, is_up), mono_s)  # type: ignore[misc]
            if members.all != self._addresses[key] and self._place(upstream, members, set_key):
                changed.append(key)
            self.is_starved = self.is_starved or self._lacks_columns(upstream, members, is_up)
        return changed

    def release(self, is_idle: Callable[[int], bool], set_key: Callable[[int, str], None]) -> None:
        """Make columns that were withdrawn spare ones, once they are idle."""
        if self._columns.is_waiting:
            for column in self._columns.release(is_idle):
                set_key(column, "")

    def _is_up(self, key: str, is_up: Callable[[int], bool]) -> bool:
        column = self.columns.get(key)
        return column is not None and is_up(column)

    def _lacks_columns(self, upstream: Upstream, members: Members, is_up: Callable[[int], bool]) -> bool:
        """Tell whether an address of the newest answer has no column, and none of those that have one is healthy."""
        keys = [upstream.at(address).key for address in members.present]
        return any(key not in self.columns for key in keys) and not any(self._is_up(key, is_up) for key in keys)

    def _place(self, upstream: Upstream, members: Members, set_key: Callable[[int, str], None]) -> bool:
        """Give every address a column and withdraw those of the others; tell whether anything is other than before."""
        found = []
        for address in members.all:
            key = upstream.at(address).key
            is_new = key not in self.columns
            column = self._columns.assign(key)
            if column is None:
                self.is_short = True
                continue
            if is_new:
                set_key(column, key)
            found.append(address)
        before = self._addresses[upstream.key]
        if not found or tuple(found) == before:
            return False
        for member in split(upstream, before):
            if member.address not in found:
                self._columns.withdraw(member.key)
        self._addresses[upstream.key] = tuple(found)
        return True

    def _count_spare(self) -> int:
        named = sum(max(len(members.present), 1) for members in self._members.values())
        return min(SPARE_COLUMNS + SPARE_FOR_EACH * named, MAX_SPARE_COLUMNS) if named else 0
