"""Whatever the file holds, load_config returns a Config or raises ConfigError, and nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from minato.config import Config, load_config, nodes
from minato.config.schema import SECTIONS, SERVICE_LISTS, SERVICE_SCALARS, TOP_LISTS, TOP_SCALARS, UPSTREAM_KEYS
from minato.errors import ConfigError

SHIPPED = (Path(__file__).parents[2] / "config.yaml").read_text()
KEYS = sorted(
    {*TOP_SCALARS, *TOP_LISTS, *SECTIONS, *SERVICE_SCALARS, *SERVICE_LISTS, *UPSTREAM_KEYS}
    | {key for section in SECTIONS.values() for key in section.keys}
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.dates(),
    st.binary(max_size=10),
    st.sampled_from(["off", "RoundRobin", "http://e/", "http://[::1]:1/a?b", "/x", "10.0.0.0/8", "200-299", "LRU"]),
    st.from_regex(r"https?://[^ ]{0,20}(:[0-9]{0,6})?(/[^ ]{0,9})?", fullmatch=True),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), inner, max_size=6)
    ),
    max_leaves=25,
)
AFFINE = SCALARS | st.sampled_from(["header", "cookie", "X-User", "__Host-a", "/", "None", 2, 1.5])
SERVICES = st.fixed_dictionaries(
    {},
    optional={
        "name": SCALARS,
        "listen_port": SCALARS | st.just(80),
        "listen": SCALARS,
        "balancer": SCALARS | st.just("ConsistentHash"),
        "hash": TREES | st.dictionaries(st.sampled_from(["by", "name", "load_factor"]), AFFINE, max_size=3),
        "sticky": TREES
        | st.dictionaries(st.sampled_from(["cookie", "ttl", "path", "samesite", "secret"]), AFFINE, max_size=5),
        "hosts": TREES | st.lists(SCALARS, max_size=3),
        "upstreams": TREES
        | st.lists(st.fixed_dictionaries({"host": SCALARS}, optional={"weight": SCALARS}), max_size=3),
    },
)
FILES = st.fixed_dictionaries(
    {"services": st.lists(SERVICES, max_size=3) | TREES}, optional={key: TREES for key in (*SECTIONS, *TOP_SCALARS)}
)
PUNCTUATION = r"""{ } [ ] , : - ? & * << <<: ! !x !!int | > # " ' \ % @ ` ~ --- ... &a *a 1 0x1F é http://e/"""
BREAKS = [
    "\n",
    "\n  ",
    "\n    ",
    "\t",
    " ",
    ": ",
    "- ",
    "? ",
    "%YAML 1.1\n",
    "%TAG ! x\n",
    "\r",
    "\x85",
    "\u2028",
    "\ufeff",
]
YAML_TOKENS = st.sampled_from([*KEYS, *PUNCTUATION.split(), *BREAKS])


@pytest.fixture(params=[yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)], ids=["pure Python", "libyaml"])
def _loader(request: pytest.FixtureRequest) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "_LOADER", request.param)
        yield


def loads_or_complains(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(data)
        file.flush()
        try:
            assert isinstance(load_config(file.name), Config)
        except ConfigError as error:
            lines = str(error).split("\n")
            last_line = len(data.decode(errors="replace").splitlines()) + 1
            assert len(lines) == len(error.problems) > 0
            assert all(line.isprintable() and line.startswith(file.name + ":") for line in lines)
            assert all(0 <= problem.line <= last_line for problem in error.problems)


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    loads_or_complains(data)


@pytest.mark.usefixtures("_loader")
class TestEitherParser:
    """PyYAML's two parsers fail in different ways."""

    @given(st.lists(YAML_TOKENS, max_size=40).map("".join) | st.text(max_size=60))
    def test_yaml_like_text_never_raises_anything_else(self, text: str) -> None:
        loads_or_complains(text.encode("utf-8", "surrogatepass"))

    @given(FILES, st.booleans())
    def test_well_formed_yaml_never_raises_anything_else(self, tree: object, is_flow: bool) -> None:
        loads_or_complains(yaml.safe_dump(tree, allow_unicode=True, default_flow_style=is_flow).encode())

    @given(st.integers(0, len(SHIPPED)), st.integers(0, 40), st.lists(YAML_TOKENS, max_size=6).map("".join))
    def test_the_shipped_config_with_a_part_replaced_never_raises_anything_else(
        self, start: int, length: int, patch: str
    ) -> None:
        loads_or_complains((SHIPPED[:start] + patch + SHIPPED[start + length :]).encode())
