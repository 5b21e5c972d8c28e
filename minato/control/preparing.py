"""Reads a config and resolves the names in it, beside the master's loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from minato.config.model import Config
from minato.decide.rollover import Preparation
from minato.errors import ConfigError
from minato.net.resolve import ResolvedAddress, resolve_upstreams

log = logging.getLogger("minato.rollover")

Addresses = Mapping[str, tuple[ResolvedAddress, ...]]


class Preparing:
    """Reads a config and resolves its names on a thread of its own: a resolver may take seconds.

    Attributes:
        status: how far it is; read by the main thread, written last by the other one.
    """

    def __init__(self, load: Callable[[], Config], known: Addresses) -> None:
        self.status = Preparation.PENDING
        self._load = load
        self._known = known
        self._result: tuple[Config, Addresses] | None = None
        threading.Thread(target=self._work, name="minato-prepare", daemon=True).start()

    def result(self) -> tuple[Config, Addresses]:
        """Return the config and its addresses, once the status is DONE."""
        assert self._result is not None, f"the preparation is {self.status.value}"
        return self._result

    def _work(self) -> None:
        status = Preparation.FAILED
        try:
            config = self._load()
            self._result = (config, resolve_upstreams(config, self._known))
            status = Preparation.DONE
        except ConfigError as error:
            for problem in error.problems:
                log.error("%s", problem.render(error.file))
        except Exception:
            log.error("cannot read the config", exc_info=True)
        finally:
            self.status = status
