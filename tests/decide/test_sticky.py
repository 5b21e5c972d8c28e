"""Sticky sessions: ids that are stable and tell nothing, a cookie as configured, and whatever clients make of it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.config.affinity import SameSite, StickyConfig
from minato.decide.sticky import Sessions, derive_id

NAMES = ["http://10.0.0.1:80", "http://10.0.0.2:80", "https://shop.example:443/base?k=v"]
PLAIN = StickyConfig("srv")
GOLDEN = b"ataj8rKgRbbgyfA17L1yGw"


def sessions(config: StickyConfig = PLAIN, service: str = "web", names: list[str] = NAMES) -> Sessions:
    return Sessions(config, service, names)


def cookie_of(made: Sessions, position: int) -> bytes:
    """The ``name=value`` that a browser sends after that upstream's response."""
    return made.lines_for(position).removeprefix(b"set-cookie: ").partition(b";")[0]


def home(made: Sessions, *cookies: bytes) -> int | None:
    return made.find_home([(b"host", b"h"), *((b"cookie", value) for value in cookies), (b"x", b"y")])


def test_every_cookie_leads_back_to_its_upstream() -> None:
    made = sessions()
    assert [home(made, cookie_of(made, position)) for position in range(3)] == [0, 1, 2]


def test_an_id_is_what_it_always_was() -> None:
    """It is part of the contract: another one would end all sessions at an upgrade."""
    assert derive_id("web", "http://10.0.0.1:80") == GOLDEN


def test_ids_stay_when_the_config_changes_otherwise() -> None:
    before, after = sessions(), sessions(StickyConfig("srv", 60, "/x", True), names=["http://new:80", *NAMES[::-1]])
    assert [home(after, cookie_of(before, position)) for position in range(3)] == [3, 2, 1]


def test_ids_of_one_that_is_gone_lead_nowhere() -> None:
    assert home(sessions(names=NAMES[1:]), cookie_of(sessions(), 0)) is None


@pytest.mark.parametrize(
    ("config", "service"),
    [(PLAIN, "other"), (StickyConfig("srv", secret="s" * 16), "web"), (StickyConfig("srv", secret="t" * 16), "web")],
)
def test_another_service_or_secret_has_other_ids(config: StickyConfig, service: str) -> None:
    assert home(sessions(config, service), cookie_of(sessions(), 0)) is None


def test_services_with_one_secret_have_the_same_ids() -> None:
    config = StickyConfig("srv", secret="s" * 16)
    assert home(sessions(config, "other"), cookie_of(sessions(config), 1)) == 1


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_an_id_shows_nothing_of_the_upstream_and_fits_a_cookie(secret: str, identity: str) -> None:
    made = derive_id(secret, identity)
    assert len(made) == 22
    assert made.replace(b"-", b"").replace(b"_", b"").isalnum()
    assert made != derive_id(secret, identity + "1")
    assert made != derive_id(secret + "1", identity)


KEEP = b'cache-control: no-cache="set-cookie"\r\n'


@pytest.mark.parametrize(
    ("config", "attributes"),
    [
        (PLAIN, b"Path=/; HttpOnly; SameSite=Lax"),
        (
            StickyConfig("srv", 3600, "/shop", True, True, SameSite.NONE),
            b"Path=/shop; Max-Age=3600; Secure; HttpOnly; SameSite=None",
        ),
        (StickyConfig("srv", httponly=False, samesite=SameSite.STRICT), b"Path=/; SameSite=Strict"),
    ],
)
def test_the_cookie_is_as_configured(config: StickyConfig, attributes: bytes) -> None:
    token = derive_id("web", NAMES[0])
    assert sessions(config).lines_for(0) == b"set-cookie: srv=%b; %b\r\n%b" % (token, attributes, KEEP)


def test_the_cookie_is_found_among_others() -> None:
    made = sessions()
    one, two = cookie_of(made, 1), cookie_of(made, 2)
    assert home(made, b"a=b; " + one + b"; c=d") == 1
    assert home(made, b"a=b;" + one) == 1
    assert home(made, one + b" ;x") == 1
    assert home(made, b"a=b", one) == 1
    assert home(made, one + b"; " + two) == 1
    assert home(made, two, one) == 2


def test_forged_cookies_lead_nowhere_and_hide_no_true_one() -> None:
    made = sessions()
    true = cookie_of(made, 2)
    token = true.partition(b"=")[2]
    for forged in (
        *(b"srv=" + b"A" * length for length in (0, 1, 21, 22, 23, 4000)),
        *(b"srv=" + token + tail for tail in (b"A", b"=", b".", b'"', b"\x00", b"\xff")),
        *(b"srv=" + head + token for head in (b"A", b'"', b"=")),
        b"srv=" + token.swapcase(),
        b"srv=" + token[:-1],
        b"SRV=" + token,
        b"xsrv=" + token,
        b"x=srv=" + token,
        b"srv =" + token,
        b"srv= " + token,
        b"srv=http://10.0.0.1:80",
        b"srv=0",
    ):
        assert home(made, forged) is None, forged
        assert home(made, forged + b"; " + true) == 2, forged
        assert home(made, forged, true) == 2, forged


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_no_cookie_field_makes_it_stumble(values: list[bytes]) -> None:
    assert home(sessions(), *values) is None


@pytest.mark.parametrize(
    "piece", [b"srv=" + b"A" * 22 + b"; ", b"srv=", b"; ", b" ", b"\t;", b"srv=" + b"A" * 22 + b" " * 50, b"srv=AAAA;"]
)
def test_the_time_it_takes_grows_with_the_field_and_no_faster(piece: bytes) -> None:
    made = sessions()

    def least_s(size: int) -> float:
        value = (piece * (size // len(piece) + 1))[:size]
        times = []
        for _ in range(5):
            began = time.perf_counter()
            assert home(made, value) is None
            times.append(time.perf_counter() - began)
        return min(times)

    assert least_s(256_000) < 100 * (least_s(16_000) + 1e-5)  # 256 times where it is quadratic
