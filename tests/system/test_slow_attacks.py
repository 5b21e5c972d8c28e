"""slowhttptest in all its modes with a thousand connections: other clients hardly notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
# A machine that others use as well is late now and then, attack or not, and a new connection's request takes five turns
# of the loop. Without the bounds on what a turn moves and on what the kernel takes, it is half a second to six.
NOISE_S = 0.1


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory, module_instances: Instances) -> Iterator[Minato]:
    """Two services, so that an origin that is busy with the attack does not count."""
    port, names = free_port(), ("test.local", "127.0.0.1")
    origins = [Nginx(tmp_path_factory.mktemp(name)) for name in names]
    services = [
        service(port, [{"host": one.url, "health_uri": "/"}], name=name, hosts=(f"http://{name}/",))
        for name, one in zip(names, origins, strict=True)
    ]
    yield module_instances.start(services=services, timeouts={"client_header": 2})
    for one in origins:
        one.stop()


@pytest.mark.parametrize("mode", MODES)
def test_slow_attacks_leave_the_p99_of_others_under_twice_the_quiet_one(
    instance: Minato, tmp_path: Path, mode: str
) -> None:
    before = instance.worker_pids()
    quiet_s = measure_p99_s(instance.port, lambda passed_s: passed_s < 1.0)
    attack = SlowAttack(instance.port, mode, tmp_path, connections=CONNECTIONS, seconds=SECONDS)
    try:
        attacked_s = measure_p99_s(instance.port, lambda passed_s: attack.is_running() or passed_s < 1.0)
        outcome = attack.outcome()
    finally:
        attack.stop()
    assert outcome.most_connected > CONNECTIONS // 2 or outcome.most_over > CONNECTIONS // 2, outcome.text
    assert outcome.was_available, outcome.text
    assert attacked_s < 2 * quiet_s + NOISE_S, (quiet_s, attacked_s)
    assert instance.worker_pids() == before
