"""slowhttptest in all its modes with a thousand connections: other clients hardly notice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import Instances
from .harness import Minato, free_port, service
from .harness.load import Nginx
from .harness.slow_attack import MODES, SlowAttack, measure_p99_s

StartMinato = Callable[..., Minato]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slow attacks")]

CONNECTIONS = 1000
SECONDS = 4
ATTEMPTS = 5
# Twice the quiet figure, a third of a millisecond, is less than a turn of the loop that moves large bodies for the
# attack, and a request on a new connection takes five turns. So in these modes that comes on top; h11 copies bodies.
OF_TURNS_S = {"slow read": 0.01, "ranges": 0.01}
OF_TURNS_OF_H11_S = {"slow body": 0.002, "slow read": 0.1, "ranges": 0.1}
# On a kernel that does not tell how long a process has waited for a processor.
NOISE_S = 0.1


@dataclass(frozen=True)
class Served:
    """An instance, and the processes that serve requests for test.local; the attack has another origin."""

    instance: Minato
    origin: Nginx

    def measure_p99_s(self, go_on: Callable[[float], bool]) -> tuple[float, bool]:
        return measure_p99_s(self.instance.port, [*self.instance.worker_pids(), self.origin.pid], go_on)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, module_instances: Instances) -> Iterator[Served]:
    """Two services, so that an origin that is busy with the attack does not count."""
    port, names = free_port(), ("test.local", "127.0.0.1")
    origins = [Nginx(tmp_path_factory.mktemp(name)) for name in names]
    services = [
        service(port, [{"host": one.url, "health_uri": "/"}], name=name, hosts=(f"http://{name}/",))
        for name, one in zip(names, origins, strict=True)
    ]
    yield Served(module_instances.start(services=services, timeouts={"client_header": 2}), origins[0])
    for one in origins:
        one.stop()


def attack_and_compare(served: Served, mode: str, directory: Path) -> tuple[float, float]:
    """Return the quiet figure and that under attack, in seconds, without what comes on top."""
    quiet_s, is_exact = served.measure_p99_s(lambda passed_s: passed_s < 1.0)
    attack = SlowAttack(served.instance.port, mode, directory, connections=CONNECTIONS, seconds=SECONDS)
    try:
        attacked_s, _ = served.measure_p99_s(lambda passed_s: attack.is_running() or passed_s < 1.0)
        outcome = attack.outcome()
    finally:
        attack.stop()
    assert outcome.most_connected > CONNECTIONS // 2 or outcome.most_over > CONNECTIONS // 2, outcome.text
    assert outcome.was_available, outcome.text
    of_turns_s = OF_TURNS_OF_H11_S if os.environ.get("MINATO_TEST_EXPRESS") == "false" else OF_TURNS_S
    return quiet_s, attacked_s - of_turns_s.get(mode, 0.0) - (0.0 if is_exact else NOISE_S)


@pytest.mark.parametrize("mode", MODES)
def test_slow_attacks_leave_the_p99_of_others_under_twice_the_quiet_one(
    served: Served, tmp_path: Path, mode: str
) -> None:
    """What disturbs the one attack or the other makes the figure larger, never smaller: the best of some counts."""
    before = served.instance.worker_pids()
    figures: list[tuple[float, float]] = []
    while len(figures) < ATTEMPTS:
        figures.append(attack_and_compare(served, mode, tmp_path))
        if figures[-1][1] < 2 * figures[-1][0]:
            break
    else:
        pytest.fail(f"quiet and attacked, in seconds: {figures}")
    assert served.instance.worker_pids() == before
