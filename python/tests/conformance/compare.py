"""Compares an actual value with the expected value of a case."""

from __future__ import annotations

import json
from typing import Any


def differences(expected: object, came: object, path: str = "") -> list[str]:
    """Returns one line for each difference."""
    if isinstance(expected, dict) and not _is_range(expected):
        if not isinstance(came, dict):
            return [_difference(path, expected, came)]
        lines = [differences(value, came.get(key), f"{path}.{key}") for key, value in expected.items()]
        return [line for some in lines for line in some]
    if isinstance(expected, list) and isinstance(came, list) and len(expected) == len(came):
        lines = [
            differences(*pair, f"{path}[{i}]") for i, pair in enumerate(zip(expected, came, strict=True))
        ]
        return [line for some in lines for line in some]
    return [] if _matches(expected, came) else [_difference(path, expected, came)]


def _matches(expected: Any, came: Any) -> bool:
    if isinstance(expected, dict):
        return _is_number(came) and expected["min"] <= came <= expected["max"]
    if expected == "*":
        return came not in (None, "", [], {})
    if _is_number(expected) or _is_number(came):
        return _is_number(expected) and _is_number(came) and expected == came
    return type(expected) is type(came) and bool(expected == came)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_range(expected: dict[str, Any]) -> bool:
    return expected.keys() == {"min", "max"}


def _difference(path: str, expected: object, came: object) -> str:
    return f"{path}: expected {_json(expected)}, came {_json(came)}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
