"""Fixtures: factories of minato and of origins; whatever they made is ended and checked, also when the test failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import App, Minato, Origin, free_port, make_config, service
from .harness.apps import Apps, address
from .harness.config import UpstreamLike
from .harness.names import Names
from .harness.proxy import BIN
from .harness.tls import Authority

StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Origin]


class Instances:
    """Starts instances of minato and sees to their end."""

    def __init__(self, directory: Callable[[], Path]) -> None:
        self._directory = directory
        self._running: list[Minato] = []

    def start(
        self,
        *upstreams: UpstreamLike,
        services: list[dict[str, Any]] | None = None,
        workers: int | None = 1,
        arguments: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        service_keys: dict[str, Any] | None = None,
        wait_ready: bool = True,
        names: Names | None = None,
        **sections: Any,
    ) -> Minato:
        """Start minato before these upstreams, on a free port, for the host test.local; or with given services.

        With ``names`` it asks them, not the system.
        """
        if services is None:
            services = [service(free_port(), upstreams, **(service_keys or {}))]
        config = make_config(services, **sections)
        program = names.program if names is not None else (str(BIN),)
        instance = Minato(self._directory(), config, workers=workers, arguments=arguments, env=env, program=program)
        self._running.append(instance)
        return instance.wait_ready() if wait_ready else instance

    def adopt(self, instance: Minato) -> Minato:
        """See to the end of an instance that the test started by itself."""
        self._running.append(instance)
        return instance

    def finish(self) -> None:
        for instance in self._running:
            instance.stop()
        complaints = [complaint for instance in self._running for complaint in instance.complaints()]
        assert not complaints, "\n".join(complaints)


def _numbered(base: Path) -> Callable[[], Path]:
    numbers = iter(range(1000))

    def make() -> Path:
        directory = base / f"minato{next(numbers)}"
        directory.mkdir()
        return directory

    return make


@pytest.fixture
def instances(tmp_path: Path) -> Iterator[Instances]:
    made = Instances(_numbered(tmp_path))
    yield made
    made.finish()


@pytest.fixture
def minato(instances: Instances) -> StartMinato:
    """``minato(*upstreams, ...)`` starts an instance and waits until it is ready."""
    return instances.start


@pytest.fixture(scope="module")
def module_instances(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instances]:
    made = Instances(lambda: tmp_path_factory.mktemp("minato"))
    yield made
    made.finish()


def _finish_origins(origins: list[Origin]) -> None:
    for origin in origins:
        origin.stop()
    failures = [failure for origin in origins for failure in origin.failures]
    assert not failures, failures


@pytest.fixture
def origin() -> Iterator[MakeOrigin]:
    """``origin()`` makes a well-behaved App, ``origin(script)`` a scripted one."""
    made: list[Origin] = []

    def make(script: Any = None, **options: Any) -> Origin:
        made.append(Origin(script, **options) if script else App(**options))
        return made[-1]

    yield make
    _finish_origins(made)


@pytest.fixture(scope="module")
def module_origin() -> Iterator[MakeOrigin]:
    made: list[Origin] = []

    def make(script: Any = None, **options: Any) -> Origin:
        made.append(Origin(script, **options) if script else App(**options))
        return made[-1]

    yield make
    _finish_origins(made)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def apps() -> Iterator[Apps]:
    made = Apps()
    yield made
    made.close()


@pytest.fixture
def names(tmp_path: Path) -> Names:
    return Names(tmp_path / "names.json", app=[address("a")])
