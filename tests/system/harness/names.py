"""Names without DNS: a file says what each one is, and minato runs with that in place of libc's getaddrinfo.

Run as ``python names.py FILE ARGUMENTS...``; all but getaddrinfo is minato as it is.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[3]
HANGS = "hangs"


class Names:
    """The file. A name is a list of addresses; an empty one where it does not resolve; HANGS where nobody answers."""

    def __init__(self, path: Path, **names: Sequence[str] | str) -> None:
        self.path = path
        self._names: dict[str, Any] = {}
        self.set(**names)

    @property
    def program(self) -> tuple[str, ...]:
        """What runs minato with these names."""
        return (str(Path(__file__).resolve()), str(self.path))

    def set(self, **names: Sequence[str] | str) -> None:
        """``app=["127.0.0.1"]`` says what app.test is from now on; the others stay."""
        self._names |= {f"{label}.test": value for label, value in names.items()}
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(self._names))
        temporary.rename(self.path)

    def asked(self) -> list[str]:
        """Every question so far, in order."""
        log = self.path.with_suffix(".asked")
        return log.read_text().split() if log.exists() else []


def _replace_getaddrinfo(path: Path) -> None:
    log = path.with_suffix(".asked").open("a", buffering=1)

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        log.write(f"{name}\n")
        while (found := json.loads(path.read_text()).get(name, [])) == HANGS:
            time.sleep(0.02)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in found]

    socket.getaddrinfo = getaddrinfo


def main() -> int:
    sys.path[0] = str(REPO)  # in place of the directory of this file
    from minato.cli import main as run

    _replace_getaddrinfo(Path(sys.argv.pop(1)))
    return run()


if __name__ == "__main__":
    sys.exit(main())
