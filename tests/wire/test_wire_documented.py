"""docs/http.md against the tests: each that it names exists, and its case does, too."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

from tests.wire.table import Case

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "http.md"
NAMED = re.compile(r"`([a-z_/0-9]+\.py)::(test_[a-z_0-9]+)(?:\[([^`]+)\])?`")
ROWS = [
    line
    for line in PAGE.read_text().splitlines()
    if re.match(r"\| [0-9]+(\.[0-9]+)*(-[0-9]+| \| -)? \| ", line) and "::" in line
]


@cache
def functions_and_strings(file: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of a file's test functions, and every string in it that may be a case's name."""
    tree = ast.parse((TESTS / file).read_text())
    nodes = list(ast.walk(tree))
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return frozenset(functions), frozenset(
        node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def cases_of(file: str) -> set[str]:
    """Return the names of the cases that a file of this folder puts together."""
    module = importlib.import_module("tests." + file.removesuffix(".py").replace("/", "."))
    tables = [value for value in vars(module).values() if isinstance(value, list)]
    return {case.name for table in tables for case in table if isinstance(case, Case)}


def test_page_has_its_tables() -> None:
    assert len(ROWS) > 150


@pytest.mark.parametrize("row", ROWS, ids=[row.split(" | ")[0][2:] + "," + str(at) for at, row in enumerate(ROWS)])
def test_every_rule_names_tests_that_exist(row: str) -> None:
    named = NAMED.findall(row.replace("\\|", "|"))
    assert named, "no rule without a test"
    assert len(named) == row.count("::")
    for file, function, case in named:
        functions, strings = functions_and_strings(file)
        assert function in functions, f"{file} has no {function}"
        if case:
            known = strings | (cases_of(file) if file.startswith("wire/") else set())
            assert case in known, f"{file} has no case {case!r}"
