"""Fixtures: every real origin once, and minato in front of all of them, with each codec."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.real.origins import MAKERS, RealOrigin
from tests.system.harness import Minato, free_port, make_config, service
from tests.system.harness.app import pattern

FILE_BYTES = 300_007


class Front:
    """minato in front of the real origins; each has a port of minato's to itself.

    Attributes:
        file: the bytes of /file, ``sha256`` their digest.
    """

    def __init__(self, instance: Minato, ports: dict[str, int], file: bytes) -> None:
        self.instance = instance
        self.ports = ports
        self.file = file
        self.sha256 = sha256(file).hexdigest()

    def url(self, origin: str, path: str = "") -> str:
        return f"http://127.0.0.1:{self.ports[origin]}{path}"


@pytest.fixture(scope="package")
def origins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RealOrigin]]:
    file = tmp_path_factory.mktemp("real") / "file"
    file.write_bytes(b"".join(pattern(FILE_BYTES)))
    file.chmod(0o644)
    running = {name: make(tmp_path_factory.mktemp(name), file) for name, make in MAKERS.items()}
    try:
        for origin in running.values():
            origin.wait_up()
        yield running
    finally:
        for origin in running.values():
            origin.stop()


@pytest.fixture(scope="package", params=[True, False], ids=["express", "h11"])
def front(
    request: pytest.FixtureRequest, origins: dict[str, RealOrigin], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    ports = {name: free_port() for name in origins}
    services = [
        service(ports[name], [{"host": origin.url, "health_uri": "/health"}], name=name, hosts=["http://127.0.0.1/"])
        for name, origin in origins.items()
    ]
    directory = Path(tmp_path_factory.mktemp("minato"))
    instance = Minato(directory, make_config(services, express=request.param), workers=1)
    try:
        instance.wait_ready()
        yield Front(instance, ports, b"".join(pattern(FILE_BYTES)))
    finally:
        instance.stop()
    assert instance.complaints() == []
