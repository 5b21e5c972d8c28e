"""What runs during a series: the origin and the instances, each in a directory of its own; all end with the series."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from configs import Place, Setup
from peers import ORIGIN, Instance, Peer, PeerError, free_port


class Fleet:
    """The origin and the instances, started when first asked for; all end with the `with` block."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="minato-bench-"))
        self._instances: dict[tuple[str, Setup], Instance] = {}
        self._failed: dict[tuple[str, Setup], PeerError] = {}
        self._started: list[Instance] = []

    def __enter__(self) -> Fleet:
        raise_descriptor_limit()
        try:
            self.origin = self._start(ORIGIN, Setup(workers=1), origin_port=0)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def instance(self, peer: Peer, setup: Setup) -> Instance:
        """Raises:
        PeerError: it does not start, or it ended since.
        """
        key = (peer.name, setup)
        if key in self._failed:
            raise self._failed[key]
        if key not in self._instances:
            try:
                self._instances[key] = self._start(peer, setup, self.origin.port)
            except PeerError as error:
                self._failed[key] = error
                raise
        if not self._instances[key].is_alive():
            raise PeerError(f"{peer.name} ended by itself:\n{self._instances[key].last_words()}")
        return self._instances[key]

    @contextlib.contextmanager
    def fresh(self, peer: Peer, setup: Setup) -> Iterator[Instance]:
        """An instance that has done nothing yet, and does nothing else after.

        Raises:
            PeerError: it does not start.
        """
        instance = self._start(peer, setup, self.origin.port)
        try:
            yield instance
        finally:
            instance.stop()

    def _start(self, peer: Peer, setup: Setup, origin_port: int) -> Instance:
        directory = Path(tempfile.mkdtemp(prefix=f"{peer.name}-", dir=self._directory))
        instance = Instance(peer, Place(directory, free_port(), origin_port, setup))
        self._started.append(instance)
        return instance

    def close(self) -> None:
        """Stops the proxies before the origin. A second Ctrl-C meanwhile must not leave processes behind."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for instance in reversed(self._started):
                instance.stop()
            shutil.rmtree(self._directory, ignore_errors=True)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def raise_descriptor_limit() -> int:
    """As many descriptors as may be, for us and all we start; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
