"""Programs frozen with PyInstaller, which cannot see the imports of an extension module."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import feishu_feed_card
from feishu_feed_card.sandbox import Sandbox

EXE = ".exe" if sys.platform == "win32" else ""
RUST = Path(__file__).parents[2] / "crates/python/src"

PROGRAM = """
import asyncio
import json
import logging
import sys
import urllib.request

from feishu_feed_card import AsyncClient, Client

base_url, app_id, app_secret, chat, user = sys.argv[1:]
logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s", stream=sys.stdout)
asked = []


def say(line):
    # One write, because the log handler writes from another thread.
    sys.stdout.write(line + "\\n")


def token():
    asked.append(1)
    url = f"{base_url}/open-apis/auth/v3/tenant_access_token/internal"
    app = json.dumps({"app_id": app_id, "app_secret": app_secret}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, app), timeout=10) as answer:
        return json.load(answer)["tenant_access_token"]


async def token_async():
    return token()


async def main():
    async with AsyncClient(token_provider=token_async, base_url=base_url) as client:
        outcome = await client.set_time_sensitive(chat, [user], False)
    say(f"unpinned {outcome.ok} {len(asked)}")


with Client(token_provider=token, base_url=base_url) as client:
    pin = {"feed_card_id": chat, "user_ids": [user], "time_sensitive": True}
    oks = [item.outcome.ok for item in client.set_time_sensitive_many([pin])]
    say(f"pinned {oks} {len(asked)}")
asyncio.run(main())
"""


def test_a_frozen_program_makes_calls(tmp_path: Path, feishu_sandbox: Sandbox):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM), encoding="utf-8")
    freeze = [sys.executable, "-m", "PyInstaller", "--log-level=WARN", "--noconfirm", str(program)]
    # For an editable installation, which PyInstaller does not find by itself.
    freeze += ["--paths", str(Path(feishu_feed_card.__file__).parents[1])]
    freeze += ["--exclude-module=pytest", "--exclude-module=_pytest"]
    frozen = subprocess.run(freeze, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    if "PythonLibraryNotFoundError" in frozen.stderr:
        pytest.skip("PyInstaller needs an interpreter with a shared library")
    assert frozen.returncode == 0, frozen.stderr
    arguments = [
        feishu_sandbox.base_url,
        feishu_sandbox.APP_ID,
        feishu_sandbox.APP_SECRET,
        feishu_sandbox.CHAT,
        feishu_sandbox.USER,
    ]
    ended = subprocess.run(
        [str(tmp_path / "dist" / "program" / f"program{EXE}"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    lines = ended.stdout.splitlines()
    assert "pinned [True] 1" in lines
    assert "unpinned True 2" in lines
    assert any(line.startswith("feishu_feed_card: ") for line in lines), ended.stdout


def test_the_package_imports_what_rust_imports_so_that_bundlers_find_it():
    sources = [file.read_text(encoding="utf-8") for file in sorted(RUST.rglob("*.rs"))]
    imported = {
        name for source in sources for name in re.findall(r'import\(\s*(?:py,\s*)?"([\w.]+)"', source)
    }
    assert {"feishu_feed_card._errors", "asyncio"} <= imported, "the pattern finds no import"
    visible = {
        f"{getattr(node, 'module', None) or ''}.{alias.name}".removeprefix(".")
        for node in ast.walk(ast.parse(Path(feishu_feed_card.__file__).read_text(encoding="utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert imported <= visible, f"{imported - visible} would be left out"
