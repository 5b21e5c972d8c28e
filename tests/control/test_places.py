"""The upstreams of a generation follow the answers for their names, each address in a column of its own."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from minato.config.model import BalancerKind, Config, ListenAddress, Service, Upstream
from minato.control.places import Places
from minato.shared.layout import Layout

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"


def upstream(host: str, port: int = 80, uri: str = "/") -> Upstream:
    return Upstream(f"http://{host}:{port}", "http", host, port, health_uri=uri)


def config_of(*upstreams: Upstream) -> Config:
    services = [
        Service(f"s{index}", ListenAddress("", 80), BalancerKind.ROUND_ROBIN, (), (one,))
        for index, one in enumerate(upstreams)
    ]
    return Config("c.yaml", tuple(services))


class World:
    """Answers, a board's keys and health, and places that follow them."""

    def __init__(self, config: Config, spare: int | None = None, **answers: tuple[str, ...]) -> None:
        self.answers = {f"{label}.test": answer for label, answer in answers.items()}
        self.places = Places(config, self.addresses_of)
        if spare is not None:
            self.places._columns._free = self.places._columns._free[:spare]
        self.keys = dict(enumerate(self.places.keys))
        self.up: set[str] = set()
        self.mono_s = 0.0
        self.edition = 0

    def addresses_of(self, host: str) -> tuple[str, ...]:
        return self.answers.get(host, ())

    def set_key(self, column: int, key: str) -> None:
        assert not key or key not in self.keys.values() or self.keys[column] == key
        self.keys[column] = key

    def follow(self, **answers: tuple[str, ...]) -> list[str]:
        self.answers |= {f"{label}.test": answer for label, answer in answers.items()}
        self.edition += 1
        return self.places.follow(
            self.addresses_of,
            self.edition,
            until_s=self.mono_s + 30,
            mono_s=self.mono_s,
            is_up=lambda column: self.keys[column] in self.up,
            set_key=self.set_key,
        )

    def serving(self) -> list[str]:
        return [member.key for member, _ in self.places.members()]

    def check(self) -> None:
        """What serves has the column that the board says it has."""
        columns = self.places.columns
        assert sorted(columns) == sorted(self.serving())
        assert all(self.keys[column] == key for key, column in columns.items())


APP = upstream("app.test")


def test_numbers_localhost_and_names_each_their_way() -> None:
    local = upstream("localhost")
    world = World(config_of(APP, upstream("10.9.9.9"), local), app=(A, B))
    world.answers["localhost"] = ("::1", "127.0.0.1")
    places = Places(config_of(APP, upstream("10.9.9.9"), local), world.addresses_of)
    assert places.hosts == {"app.test", "localhost"}
    assert places.keys == [APP.at(A).key, APP.at(B).key, "http://10.9.9.9:80/", local.key]
    assert [len(addresses) for _, addresses in places.members()] == [1, 1, 1, 2]
    assert [one.host for one in places.addresses()[local.key]] == ["::1", "127.0.0.1"]


def test_config_without_names_has_no_column_to_spare() -> None:
    places = Places(config_of(upstream("10.9.9.9"), upstream("localhost")), lambda host: ())
    assert places.spare == 0
    assert places.is_settled


def test_same_name_with_other_ports_and_probes_is_asked_for_once() -> None:
    places = Places(config_of(APP, upstream("app.test", 81), upstream("app.test", 80, "/up")), lambda host: (A,))
    assert places.hosts == {"app.test"}
    assert len(set(places.keys)) == 3


def test_new_address_gets_a_column_and_the_old_one_stays_until_the_new_one_is_up() -> None:
    world = World(config_of(APP), app=(A,))
    assert world.follow(app=(B,)) == [APP.key]
    assert world.serving() == [APP.at(B).key, APP.at(A).key]
    assert world.follow() == []
    assert not world.places.is_settled
    world.up.add(APP.at(B).key)
    assert world.follow() == [APP.key]
    assert world.serving() == [APP.at(B).key]
    assert world.places.is_settled
    world.check()


def test_column_is_a_spare_one_again_once_it_is_idle() -> None:
    world = World(config_of(APP), app=(A,))
    world.up.add(APP.at(B).key)
    world.follow(app=(B,))
    world.follow()
    world.places.release(lambda column: False, world.set_key)
    assert world.keys[0] == APP.at(A).key
    world.places.release(lambda column: True, world.set_key)
    assert world.keys[0] == ""


def test_name_that_resolves_for_the_first_time_takes_the_place_of_nobody() -> None:
    world = World(config_of(APP))
    assert world.serving() == [APP.key]
    assert world.places.placed(APP.key) == ()
    assert world.follow(app=(A, B)) == [APP.key]
    assert world.serving() == [APP.at(A).key, APP.at(B).key]
    assert [address for address, _ in world.places.placed(APP.key)] == [A, B]
    world.check()


def test_board_that_is_full_leaves_out_what_does_not_fit_and_says_so() -> None:
    world = World(config_of(APP), spare=1, app=(A,))
    world.follow(app=(A, B, C))
    assert world.serving() == [APP.at(A).key, APP.at(B).key]
    assert world.places.is_short and not world.places.is_settled
    world.check()


def test_name_is_starved_where_nobody_healthy_has_a_column_and_somebody_has_none() -> None:
    world = World(config_of(APP), spare=1, app=(A,))
    world.up.add(APP.at(B).key)
    world.follow(app=(A, B, C))
    assert world.places.is_short and not world.places.is_starved
    world.up.clear()
    world.follow()
    assert world.places.is_starved
    world.follow(app=(A, B))
    assert not world.places.is_starved, "whoever there is has a column"


def test_name_that_moves_again_and_again_leaves_streams_behind_without_running_out_of_columns() -> None:
    world = World(config_of(APP), app=(A,))
    for number in range(200):
        address = f"10.3.0.{number}"
        world.up.add(APP.at(address).key)
        world.follow(app=(address,))
        world.follow()
        world.places.release(lambda column: False, world.set_key)
        assert world.serving() == [APP.at(address).key]
    assert not world.places.is_short
    world.check()


def test_columns_to_spare_cost_little_memory() -> None:
    places = Places(config_of(APP), lambda host: (A,))
    rows, key_bytes = 20, places.key_bytes * places.spare
    assert Layout(rows, len(places.keys) + places.spare, key_bytes).size_bytes < 400_000


def test_board_that_is_full_never_leaves_a_name_without_anybody() -> None:
    world = World(config_of(APP), spare=0, app=(A,))
    world.follow(app=(B,))
    world.mono_s = 1_000.0
    assert world.follow() == []
    assert world.serving() == [APP.at(A).key]
    assert world.places.is_short


def test_thousand_addresses_get_columns_for_all_of_them_to_change_twice() -> None:
    many = tuple(f"10.1.{n // 250}.{n % 250}" for n in range(256))
    world = World(config_of(APP), app=many)
    others = tuple(f"10.2.{n // 250}.{n % 250}" for n in range(256))
    world.follow(app=others)
    assert len(world.serving()) == 512
    assert not world.places.is_short
    world.check()


_ANSWERS = st.sets(st.sampled_from([A, B, C, "::1", "fe80::1%2"]), max_size=4).map(lambda found: tuple(sorted(found)))


@given(
    st.lists(st.tuples(_ANSWERS, _ANSWERS, st.sets(st.integers(0, 7)), st.floats(0, 40), st.booleans())),
    st.integers(0, 6),
)
def test_columns_are_right_whatever_the_answers(
    steps: list[tuple[tuple[str, ...], tuple[str, ...], set[int], float, bool]], spare: int
) -> None:
    world = World(config_of(APP, upstream("other.test")), spare=spare, app=(A,))
    for app, other, up, wait_s, is_idle in steps:
        world.up = {world.keys[column] for column in up if column in world.keys}
        before = world.serving()
        changed = world.follow(
            app=app or world.addresses_of("app.test"), other=other or world.addresses_of("other.test")
        )
        assert (world.serving() != before) == bool(changed)
        world.check()
        assert all(any(key.startswith(f"http://{name}.test") for key in world.serving()) for name in ("app", "other"))
        world.places.release(lambda column, idle=is_idle: idle, world.set_key)
        world.mono_s += wait_s
