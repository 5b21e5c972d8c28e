"""The works: what is asked of which setup of a peer, and how often at once."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from configs import Setup


class Group(enum.Enum):
    """Where a work stands in the report, and who does it: the first two are done by all peers, the others by minato."""

    MAIN = "Side by side"
    IDLE = "10,000 idle connections"
    SERVICES = "Number of services"
    ENTRIES = "Number of stored responses"
    WORKERS = "Number of workers"

    @property
    def is_of_all_peers(self) -> bool:
        return self in {Group.MAIN, Group.IDLE}

    @property
    def is_to_be_flat(self) -> bool:
        """Whether the cost is to be that of the group's first work."""
        return self in {Group.SERVICES, Group.ENTRIES}


@dataclass(frozen=True, slots=True)
class Work:
    """One work.

    Attributes:
        name: on the command line.
        title: in the report.
        path: what is asked for; a script may ask for more.
        script: the wrk script in wrk/, without its ending; "" for wrk's own request.
        arguments: the script's.
        warm_arguments: the script's while the cache is filled, where they differ.
        connections: open at once.
        body_bytes: length of the right answer; None where the coding decides it.
        chunked: whether the right answer is chunked.
        quick: whether `--quick` does it.
        silent: of the idle works: whether the connections never ask for anything.
    """

    name: str
    title: str
    path: str = "/1k"
    script: str = ""
    arguments: tuple[str, ...] = ()
    warm_arguments: tuple[str, ...] = ()
    connections: int = 64
    setup: Setup = Setup()  # noqa: RUF009 (frozen)
    group: Group = Group.MAIN
    body_bytes: int | None = 1_024
    chunked: bool = False
    quick: bool = True
    silent: bool = False

    @property
    def is_cached(self) -> bool:
        return self.setup.cache_entries > 0


_CACHE = Setup(cache_entries=10_000)


def _services(number: int, asked: int, title: str, name: str) -> Work:
    return Work(
        name,
        title,
        script="services",
        arguments=(str(asked),),
        setup=Setup(services=number),
        group=Group.SERVICES,
        quick=False,
    )


def _entries(number: int, asked: int, title: str, name: str) -> Work:
    # One worker: with more, each has a cache of its own, and it takes chance and time to fill them all.
    return Work(
        name,
        title,
        path="/c/0",
        script="entries",
        arguments=(str(asked),),
        warm_arguments=(str(number),),
        setup=Setup(cache_entries=number, workers=1),
        group=Group.ENTRIES,
        quick=False,
    )


def _workers(number: int) -> Work:
    title = f"forward, {number} worker{'s' if number > 1 else ''}"
    return Work(f"workers-{number}", title, setup=Setup(workers=number), group=Group.WORKERS, quick=False)


WORKS = (
    Work("hit", "cache hit, same head", setup=_CACHE),
    Work("hit-cookie", "cache hit, new cookie each", path="/c/0", script="cookie", setup=_CACHE),
    Work("hit-10k", "cache hit, 10 KB", path="/10k", setup=_CACHE, body_bytes=10_240),
    Work("hit-c1000", "cache hit, 1000 connections", connections=1_000, setup=_CACHE, quick=False),
    Work("forward", "forward, same head"),
    Work("browser", "forward, browser head, new URL and cookie", path="/p/0", script="browser"),
    Work("post", "forward, POST 1 KB", path="/echo", script="post", body_bytes=2),
    Work("chunked", "forward, chunked response", script="gzip", body_bytes=None, chunked=True),
    Work("close", "forward, connection per request", script="close"),
    Work("1m", "forward, 1 MB, 8 connections", path="/1m", connections=8, body_bytes=1_048_576),
    Work(
        "upload",
        "forward, POST 1 MB, 8 connections",
        path="/upload",
        script="upload",
        connections=8,
        body_bytes=2,
        quick=False,
    ),
    Work("c1000", "forward, 1000 connections", connections=1_000),
    Work("log", "forward, access log on", setup=Setup(access_log=True), quick=False),
    _services(1, 1, "1 service", "services-1"),
    _services(1_000, 1, "1,000 services, one asked", "services-1000"),
    _services(10_000, 1, "10,000 services, one asked", "services-10000"),
    _services(1_000, 1_000, "1,000 services, all asked in turn", "services-1000-all"),
    _services(10_000, 10_000, "10,000 services, all asked in turn", "services-10000-all"),
    _entries(100, 100, "100 stored, all asked in turn", "entries-100"),
    _entries(100_000, 100, "100,000 stored, 100 of them asked in turn", "entries-100000"),
    _entries(100_000, 100_000, "100,000 stored, all asked in turn", "entries-100000-all"),
    _workers(1),
    _workers(2),
    _workers(4),
    Work("idle", "asked once each, browser head", connections=10_000, group=Group.IDLE, quick=False),
    Work("idle-silent", "never asked", connections=10_000, group=Group.IDLE, quick=False, silent=True),
)
