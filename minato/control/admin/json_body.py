"""The body of a POST as a JSON object, strictly: each key once, no constants that are no JSON."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from minato.control.admin.answer import refuse


def read_object(body: bytes, example: str) -> dict[str, Any]:
    """Return the object that a body holds.

    Raises:
        Refused: 400, it is not JSON or not an object such as the example.
    """
    try:
        content = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else error
        raise refuse(400, f"the body is not JSON: {reason}") from None
    if not isinstance(content, dict):
        raise refuse(400, f"the body must be a JSON object, such as {example}")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key is given twice")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
