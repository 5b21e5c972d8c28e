"""The parent's hand on an origin process: starts it, gives it its mode, kills it, reads its journal."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from tests.chaos.origin import Fate, Mode
from tests.ports import free_port
from tests.system.harness.proxy import REPO

_ANSWER_TIMEOUT_S = 20.0


class OriginProcess:
    """One origin, on one port for all its lives."""

    def __init__(self, directory: Path, name: str) -> None:
        self.port = free_port()
        self._journal = directory / f"{name}.journal"
        self._errors = directory / f"{name}.stderr"
        self._journal.touch()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Raises AssertionError: it does not come up."""
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.origin", str(self.port), str(self._journal)],
                cwd=REPO,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        await self._expect("serves")

    async def set_mode(self, mode: Mode) -> None:
        """Have it behave so from the next request on; back when it does."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{mode.value}\n".encode())
        self._process.stdin.flush()
        await self._expect(mode.value)

    async def _expect(self, word: str) -> None:
        process = self._process
        assert process is not None and process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), _ANSWER_TIMEOUT_S)
        assert line.decode().strip() == word, f"the origin said {line!r}: {self.errors()}"

    async def recover(self) -> None:
        """Have it be there, and good, whatever it was before."""
        if self._process is None:
            await self.start()
        else:
            await self.set_mode(Mode.GOOD)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        process = self._process
        if process is not None:
            process.kill()
            process.wait(10)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
            self._process = None

    def errors(self) -> str:
        """What it wrote to stderr: nothing, if all is well."""
        return self._errors.read_text() if self._errors.exists() else ""

    def fates(self) -> dict[str, list[Fate]]:
        """Return what it did to each request so far, in order."""
        found: dict[str, list[Fate]] = defaultdict(list)
        for line in self._journal.read_text().splitlines():
            fate, _, name = line.partition(" ")
            found[name].append(Fate(fate))
        return found
