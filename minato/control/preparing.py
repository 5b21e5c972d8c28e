"""The first step of a rollover: reads the config and has its names asked for, beside the master's loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from minato.config.model import Config
from minato.control.naming import Naming
from minato.control.places import Places
from minato.decide.rollover import Preparation
from minato.errors import ConfigError

log = logging.getLogger("minato.rollover")


class Preparing:
    """Reads a config on a thread of its own, then has its names asked for."""

    def __init__(self, load: Callable[[], Config], naming: Naming) -> None:
        self._load = load
        self._naming = naming
        self._config: Config | None = None
        self._are_names_asked = False
        self._reading = Preparation.PENDING  # written last by the thread
        threading.Thread(target=self._work, name="minato-prepare", daemon=True).start()

    def progress(self) -> Preparation:
        """Tell how far it is, after the next step where that can be taken now."""
        if self._reading is not Preparation.DONE:
            return self._reading
        if not self._are_names_asked:
            assert self._config is not None
            self._are_names_asked = True
            self._naming.prepare(self._config)
        return Preparation.DONE if self._naming.is_prepared() else Preparation.PENDING

    def result(self) -> tuple[Config, Places]:
        """Return the config, and what its names are, once the progress is DONE."""
        assert self._config is not None, f"the preparation is {self._reading.value}"
        return self._config, self._naming.make_places(self._config)

    def _work(self) -> None:
        reading = Preparation.FAILED
        try:
            self._config = self._load()
            reading = Preparation.DONE
        except ConfigError as error:
            for problem in error.problems:
                log.error("%s", problem.render(error.file))
        except Exception:
            log.error("cannot read the config", exc_info=True)
        finally:
            self._reading = reading
