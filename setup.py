"""The build: pyproject.toml says what minato is; this adds the shipped config.yaml to the installed package."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfig(build_py):
    """Copies the top-level config.yaml to minato/config.yaml of what is built, for `minato demo`.

    An editable install has no copy: there the file of the checkout is the one.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "minato", "config.yaml")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile("config.yaml", target)

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), "config.yaml"]


setup(cmdclass={"build_py": BuildWithConfig})
