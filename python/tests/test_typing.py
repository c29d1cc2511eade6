"""What type checkers make of the package, and whether its examples run."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

TYPING = Path(__file__).parent / "typing"
PROJECT = Path(__file__).parent.parent


def mypy(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs mypy with the project's own options."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(PROJECT / "pyproject.toml"), *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)


def test_typical_uses_are_right():
    ended = mypy(str(TYPING / "right_uses.py"))
    assert ended.returncode == 0, ended.stdout


def test_wrong_uses_are_errors():
    file = TYPING / "wrong_uses.py"
    ended = mypy("--no-pretty", "--hide-error-context", str(file))
    found = {
        (int(line), code)
        for line, code in re.findall(
            r"wrong_uses\.py:(\d+): error: .*\[([a-z-]+)\]$", ended.stdout, re.MULTILINE
        )
    }
    lines = enumerate(file.read_text().splitlines(), 1)
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
        "feishu_feed_card._outcome",
        "feishu_feed_card.sandbox",
    ],
)
def test_examples_run(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEISHU_APP_ID", "cli_1")
    monkeypatch.setenv("FEISHU_APP_SECRET", "secret")
    module = importlib.import_module(name)
    names = {"Outcome": module.Outcome} if name.endswith("_outcome") else {}
    failed, tried = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert failed == 0
    assert tried > 0
