"""Type checks of typical and wrong uses, doctests, and type hints at run time."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import feishu_feed_card
import feishu_feed_card.sandbox

TYPING = Path(__file__).parent / "typing"
PROJECT = Path(__file__).parent.parent


def mypy(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs mypy with the project's own options."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(PROJECT / "pyproject.toml"), *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)


def test_right_uses_have_no_type_error():
    ended = mypy(str(TYPING / "right_uses.py"))
    assert ended.returncode == 0, ended.stdout


def test_wrong_uses_have_the_expected_type_errors():
    file = TYPING / "wrong_uses.py"
    ended = mypy("--no-pretty", "--hide-error-context", str(file))
    found = {
        (int(line), code)
        for line, code in re.findall(
            r"wrong_uses\.py:(\d+): error: .*\[([a-z-]+)\]$", ended.stdout, re.MULTILINE
        )
    }
    lines = enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
    expected = {
        (number, code)
        for number, line in lines
        if "# expect: " in line
        for code in line.split("# expect: ")[1].split(", ")
    }
    assert found == expected, f"missing {expected - found}, too many {found - expected}\n{ended.stdout}"


@pytest.mark.parametrize(
    "name",
    [
        "feishu_feed_card",
        "feishu_feed_card._client",
        "feishu_feed_card._many",
        "feishu_feed_card.sandbox",
    ],
)
def test_doctests_pass(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEISHU_APP_ID", "cli_1")
    monkeypatch.setenv("FEISHU_APP_SECRET", "secret")
    module = importlib.import_module(name)
    failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failed == 0
    assert tried > 0


def public() -> Iterator[tuple[str, object]]:
    """All public functions, classes and methods, including inherited methods."""
    for module in (feishu_feed_card, feishu_feed_card.sandbox):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                yield f"{module.__name__}.{name}", thing
            for member in dir(thing) if inspect.isclass(thing) else ():
                method = inspect.getattr_static(thing, member)
                method = getattr(method, "fget", getattr(method, "__func__", method))
                if inspect.isfunction(method) and (not member.startswith("_") or member.startswith("__")):
                    yield f"{module.__name__}.{name}.{member}", method


PUBLIC = dict(public())


@pytest.mark.parametrize("name", PUBLIC)
def test_type_hints_can_be_resolved(name: str):
    hints = typing.get_type_hints(PUBLIC[name])
    late = {hint: value for hint, value in hints.items() if isinstance(value, (str, typing.ForwardRef))}
    assert late == {}


def test_resolved_type_hints_are_the_types():
    from feishu_feed_card import Outcome, Progress, UserIds, UserIdType

    hints = typing.get_type_hints(feishu_feed_card.Client.set_time_sensitive)
    assert hints["return"] is Outcome
    assert hints["user_ids"] == UserIds
    assert hints["user_id_type"] == UserIdType
    assert hints["timeout"] == typing.Optional[float]  # noqa: UP045 -- what `typing` makes
    many = typing.get_type_hints(feishu_feed_card.AsyncClient.set_time_sensitive_many)
    assert many["progress"] == typing.Optional[Callable[[Progress], object]]  # noqa: UP045
