"""Loading config text through a real file, with either of PyYAML's parsers, and what came of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from minato.config import Config, load_config, nodes
from minato.errors import ConfigError

from .samples import Complaints, Load


@pytest.fixture(params=["libyaml", "pure Python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with both parsers: which one a user gets is PyYAML's build's affair, and no line may differ."""
    name: str = request.param
    if name == "libyaml" and not yaml.__with_libyaml__:
        pytest.skip("this PyYAML is built without libyaml")
    monkeypatch.setattr(nodes, "_LOADER", yaml.CSafeLoader if name == "libyaml" else yaml.SafeLoader)
    return name


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load text as a config file."""

    def load_text(text: str | bytes) -> Config:
        file = tmp_path / "c.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(str(file))

    return load_text


@pytest.fixture
def complaints(load: Load, tmp_path: Path, parser: str) -> Complaints:
    """Return the rendered problems of config text, with the file's name left out: ``LINE: key.path: message``."""

    def complaints_of(text: str | bytes) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text)
        prefix = str(tmp_path / "c.yaml")
        return [line.removeprefix(prefix).removeprefix(":").lstrip() for line in str(caught.value).split("\n")]

    return complaints_of
