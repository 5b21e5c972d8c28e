"""The services of one worker: built from the config and the addresses of names, changed in place when those change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from minato.config.model import Config, Upstream
from minato.decide.members import split
from minato.net.resolve import ResolvedAddress, with_port
from minato.net.runtime import Origins, ServiceRuntime, build_services


class Services:
    """All of them.

    Attributes:
        runtimes: by their places in the config; the same objects as long as the worker lives.
    """

    def __init__(
        self,
        config: Config,
        slot: int,
        addresses: Mapping[str, tuple[ResolvedAddress, ...]],
        columns: Mapping[str, int] | None,
        active: Callable[[int], int],
    ) -> None:
        """Build them.

        Args:
            config: of the generation.
            slot: keeps workers out of step.
            addresses: of the upstreams, by Upstream.key; in the order to try where all are one upstream.
            columns: of the upstreams, each address of a name its own, by Upstream.key; None: as they come.
            active: exchanges in flight by column of the board.
        """
        self._config = config
        self._slot = slot
        self._addresses = dict(addresses)
        self._active = active
        self._origins = Origins()
        self._named: dict[str, Upstream] = {}
        self._users: dict[str, list[int]] = {}
        for index, service in enumerate(config.services):
            for upstream in service.upstreams:
                self._named[upstream.key] = upstream
                self._users.setdefault(upstream.key, []).append(index)
        everything = range(len(config.services))
        self._columns = dict(columns if columns is not None else self._split(everything).upstream_index())
        self.runtimes = self._build(everything)

    def columns_of(self, key: str) -> set[tuple[str, int]]:
        """Return what an upstream is at the moment, each with its column, where it has one."""
        upstream = self._named.get(key)
        members = self._members(upstream) if upstream is not None else ()
        return {(member.key, self._columns[member.key]) for member in members if member.key in self._columns}

    def change(self, key: str, places: Sequence[tuple[str, int]]) -> list[int]:
        """Give an upstream other addresses, with the columns of the board; return the origins that are gone."""
        upstream = self._named.get(key)
        if upstream is None:
            return []
        for member in self._members(upstream):
            self._columns.pop(member.key, None)
        self._addresses[key] = with_port([address for address, _ in places], upstream.port)
        self._columns.update({upstream.at(address).key: column for address, column in places})
        for runtime in self._build(self._users[key]):
            self.runtimes[runtime.index].become(runtime)
        return self._origins.keep_only({one.origin for service in self.runtimes for one in service.upstreams})

    def _build(self, wanted: Sequence[int]) -> tuple[ServiceRuntime, ...]:
        return build_services(
            self._split(wanted),
            self._slot,
            self._member_addresses(wanted),
            self._active,
            columns=self._columns,
            origins=self._origins,
            wanted=wanted,
        )

    def _members(self, upstream: Upstream) -> Sequence[Upstream]:
        return split(upstream, [address.host for address in self._addresses.get(upstream.key, ())])

    def _split(self, wanted: Sequence[int]) -> Config:
        """Return the config with those services split; the others are not looked at."""
        services = list(self._config.services)
        for index in wanted:
            members = [member for upstream in services[index].upstreams for member in self._members(upstream)]
            services[index] = replace(services[index], upstreams=tuple(members))
        return replace(self._config, services=tuple(services))

    def _member_addresses(self, wanted: Sequence[int]) -> dict[str, tuple[ResolvedAddress, ...]]:
        """Return what each upstream of those services is to connect to."""
        found = {}
        for index in wanted:
            for upstream in self._config.services[index].upstreams:
                addresses = self._addresses.get(upstream.key, ())
                for member in self._members(upstream):
                    found[member.key] = tuple(one for one in addresses if member.address in ("", one.host))
        return found
