"""Origins that one name may stand for: on several loopback addresses, with one port."""

from __future__ import annotations

from typing import Any

from .app import App

LETTERS = "abcde"


def address(letter: str) -> str:
    return f"127.0.0.{LETTERS.index(letter) + 1}"


class Apps:
    """Origins with one port on several addresses; /who tells which one answered."""

    def __init__(self, letters: str = LETTERS) -> None:
        self._apps: dict[str, App] = {}
        port = 0
        for letter in letters:
            self._apps[letter] = app = App(name=letter, host=address(letter), port=port)
            port = app.port
            app.routes[b"/who"] = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + letter.encode()
            app.routes[b"/kept"] = (
                b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\n" + letter.encode()
            )
        self.port = port

    def __getitem__(self, letter: str) -> App:
        return self._apps[letter]

    def upstream(self, label: str = "app", **keys: Any) -> dict[str, Any]:
        return {"host": f"http://{label}.test:{self.port}", "health_uri": "/health"} | keys

    def close(self) -> None:
        for app in self._apps.values():
            app.stop()
        failures = [failure for app in self._apps.values() for failure in app.failures]
        assert not failures, failures
