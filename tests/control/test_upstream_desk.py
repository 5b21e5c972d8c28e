"""What the admin API is told of upstreams: by which names they are found, and where each stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minato.config.model import BalancerKind, HostRule, ListenAddress, Service, Upstream
from minato.control.drains import Drained
from minato.control.standings import UpstreamStatus
from minato.control.upstream_desk import UpstreamDesk
from minato.decide.outliers import Outcomes
from minato.decide.standing import Standing

NAME = Upstream("http://app.test/base/", "http", "app.test", 80, "/base", health_uri="/up", weight=3)
SINGLE = Upstream("https://[::1]:8443", "https", "::1", 8443, backup=True)
FIRST, SECOND = NAME.at("10.0.0.1"), NAME.at("10.0.0.2")
SERVICE = Service("web", ListenAddress("", 80), BalancerKind.ROUND_ROBIN, (HostRule("e", "/"),), (NAME, SINGLE))


class Checker:
    """Knows all of them, and takes down what it is asked."""

    def __init__(self) -> None:
        self.marked: list[tuple[tuple[str, ...], bool]] = []

    def statuses(self) -> Sequence[UpstreamStatus]:
        return [
            UpstreamStatus(FIRST.key, Standing.EJECTED, "5 failures in a row", 2, 7.25, ("web",), Outcomes(1, 5)),
            UpstreamStatus(SINGLE.key, Standing.UP, "", 0, None, ("web",), Outcomes()),
        ]

    def drain(self, keys: Sequence[str], on: bool, on_marked: Callable[[Drained], None]) -> None:
        self.marked.append((tuple(keys), on))
        on_marked(Drained({"web": 1}))


def make_desk(checker: Checker | None = None) -> UpstreamDesk:
    upstreams = [FIRST, SECOND, SINGLE]
    checker = checker or Checker()
    return UpstreamDesk(checker, lambda: [(SERVICE, upstreams)], len, checker.drain)


def test_a_name_stands_for_all_its_addresses_and_each_can_be_named() -> None:
    names = make_desk().names()
    for whole in ("http://app.test/base/", "http://app.test/base", "http://app.test:80"):
        assert names[whole] == [FIRST.key, SECOND.key]
    for single in ("http://app.test/base/ [10.0.0.2]", "http://app.test:80 [10.0.0.2]", SECOND.key):
        assert names[single] == [SECOND.key]
    assert names["https://[::1]:8443"] == [SINGLE.key]


def test_each_address_is_told_of_with_its_standing_and_what_nobody_knows_is_not() -> None:
    first, single = make_desk().describe()
    assert first == {
        "service": "web",
        "url": "http://app.test/base/ [10.0.0.1]",
        "state": "ejected",
        "reason": "5 failures in a row",
        "active": len(FIRST.key),
        "weight": 3,
        "backup": False,
        "refused": 1,
        "failed": 5,
        "ejections": 2,
        "ejected_for_s": 7.2,
    }
    assert (single["state"], single["backup"], "ejected_for_s" in single) == ("up", True, False)


def test_a_mark_goes_to_the_checker() -> None:
    checker = Checker()
    told: list[Drained] = []
    make_desk(checker).mark_drain([FIRST.key], True, told.append)
    assert told == [Drained({"web": 1})]
    assert checker.marked == [((FIRST.key,), True)]
