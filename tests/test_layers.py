"""The layers: imports point one way, the inner layers do no I/O, and every module says what it is for."""

from __future__ import annotations

import ast
import copy
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "minato"
# Right may import left. What stands together is one layer.
LAYERS = (
    ("errors",),
    ("config",),
    ("protocol",),
    ("caching",),
    ("decide",),
    ("shared",),
    ("telemetry",),
    ("net",),
    ("control",),
    ("cli", "demo", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
SANS_IO = {"protocol", "caching", "decide"}
IO_MODULES = {
    *("asyncio", "concurrent", "fcntl", "http", "io", "logging", "mmap", "multiprocessing", "os", "pathlib", "random"),
    *(
        "resource",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
    ),
    *("threading", "time", "urllib.request"),
}
IO_CALLS = {"open", "print", "input", "now", "utcnow", "today"}
# Whoever else needs h11 would know what only a codec (and a probe, which is a client of its own) should know.
H11_USERS = {"minato.protocol.h11_codec", "minato.control.probe"}

PATHS = sorted(ROOT.rglob("*.py"))
NAMES = [".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__") for path in PATHS]
MODULES = {name: ast.parse(path.read_bytes(), str(path)) for name, path in zip(NAMES, PATHS, strict=True)}


def imports_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything imported, wherever it stands; ``from a import b`` yields ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def layer_of(name: str) -> str | None:
    """Return the part of ``minato.<part>...``; None for the package itself, which holds the version alone."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else None


def wrong_directions(name: str, tree: ast.Module) -> list[str]:
    rank = RANK.get(layer_of(name) or "", -1)
    wrong = []
    for line, imported in imports_of(tree):
        if imported.startswith("."):
            wrong.append(f"{name}:{line}: relative import {imported}")
        elif imported.startswith("minato."):
            other = RANK.get(layer_of(imported) or "")
            if other is not None and other > rank:
                wrong.append(f"{name}:{line}: imports {imported}, which is of a later layer")
    return wrong


def input_and_output(name: str, tree: ast.Module) -> list[str]:
    found = [
        f"{name}:{line}: imports {imported}"
        for line, imported in imports_of(tree)
        if any(imported == module or imported.startswith(f"{module}.") for module in IO_MODULES)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in IO_CALLS:
                found.append(f"{name}:{node.lineno}: calls {called}()")
    return found


class _WithoutTypeChecking(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse
        return self.generic_visit(node)


def dependencies(name: str, tree: ast.Module) -> set[str]:
    """Return the package's modules that one imports when it runs; not what it names in types alone.

    ``from minato.a import b`` names a module, or something in one.
    """
    running = _WithoutTypeChecking().visit(copy.deepcopy(tree))
    imported = {full for _, full in imports_of(running)}
    found = {full if full in MODULES else full.rpartition(".")[0] for full in imported}
    return (found & MODULES.keys()) - {name, "minato"}


def test_every_part_of_the_package_has_its_layer() -> None:
    parts = {layer_of(name) for name in MODULES} - {None}
    assert parts <= RANK.keys()


def test_imports_point_one_way() -> None:
    assert [problem for name, tree in MODULES.items() for problem in wrong_directions(name, tree)] == []


def test_inner_layers_do_no_input_or_output() -> None:
    inner = {name: tree for name, tree in MODULES.items() if layer_of(name) in SANS_IO}
    assert [problem for name, tree in inner.items() for problem in input_and_output(name, tree)] == []


def test_modules_do_not_import_in_circles() -> None:
    graph = {name: dependencies(name, tree) for name, tree in MODULES.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_h11_stays_inside_its_codec() -> None:
    users = {
        name for name, tree in MODULES.items() for _, imported in imports_of(tree) if imported.split(".")[0] == "h11"
    }
    assert users <= H11_USERS


@pytest.mark.parametrize("name", MODULES)
def test_module_names_its_responsibility_in_its_first_line(name: str) -> None:
    docstring = ast.get_docstring(MODULES[name])
    assert docstring, "no docstring"
    assert docstring.splitlines()[0].endswith("."), "the first line is not a sentence"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("minato.errors", "import minato.config"),
        ("minato.protocol.x", "from minato.net.loop import Loop"),
        ("minato.shared.x", "from minato import telemetry"),
        ("minato.decide.x", "def f():\n    from minato.control import master"),
        ("minato.decide.x", "if TYPE_CHECKING:\n    from minato.net import loop"),
        ("minato.net.x", "from . import loop"),
        ("minato", "from minato.errors import MinatoError"),
    ],
)
def test_import_in_the_wrong_direction_is_found(name: str, source: str) -> None:
    assert wrong_directions(name, ast.parse(source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "import os.path",
        "from time import monotonic",
        "from urllib.request import urlopen",
        "open('x')",
        "datetime.now()",
        "def f():\n    import random",
    ],
)
def test_input_or_output_is_found(source: str) -> None:
    assert input_and_output("minato.decide.x", ast.parse(source)) != []


def test_import_for_types_alone_makes_no_circle() -> None:
    tree = ast.parse("if TYPE_CHECKING:\n    from minato.net import loop\nelse:\n    import minato.errors")
    assert dependencies("minato.net.x", tree) == {"minato.errors"}


def test_imports_to_the_left_and_pure_modules_are_let_through() -> None:
    tree = ast.parse("import re\nfrom urllib.parse import quote\nfrom minato.errors import MinatoError\nimport osmosis")
    assert wrong_directions("minato.decide.x", tree) == []
    assert input_and_output("minato.decide.x", tree) == []
