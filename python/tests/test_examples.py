"""The examples, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from feishu_feed_card.sandbox import Sandbox

EXAMPLES = Path(__file__).parent.parent / "examples"
CHATS = [f"oc_{number}" for number in range(30)]


@pytest.mark.parametrize("name", ["pin_many", "pin_as_they_come"])
@pytest.mark.parametrize("outsiders", [0, 1], ids=["", "one is not in the chats"])
@pytest.mark.parametrize("chats", [CHATS, [*CHATS, "oc_nowhere"]], ids=["well", "one fails"])
def test_example(name: str, chats: list[str], outsiders: int, feishu_sandbox: Sandbox, tmp_path: Path):
    for chat in CHATS:
        feishu_sandbox.put_chat({"feed_card_id": chat, "members": [feishu_sandbox.USER]})
    file = tmp_path / "chats.txt"
    file.write_text("\n\n".join(chats) + "\n", encoding="utf-8")
    arguments = [str(file)] if name == "pin_many" else []
    on_call = [feishu_sandbox.USER, feishu_sandbox.OUTSIDER][: 1 + outsiders]
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments, *on_call],
        input=file.read_text(encoding="utf-8"),
        env={
            **os.environ,
            "FEISHU_APP_ID": feishu_sandbox.APP_ID,
            "FEISHU_APP_SECRET": feishu_sandbox.APP_SECRET,
            "FEISHU_BASE_URL": feishu_sandbox.base_url,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    failures = len(chats) - len(CHATS)
    assert ended.returncode == max(failures, outsiders), ended.stderr
    assert f"{len(chats)}chat" in ended.stderr or f"{len(chats)}/{len(chats)}" in ended.stderr, ended.stderr
    assert ("oc_nowhere: " in ended.stderr) == bool(failures)
    assert ended.stderr.count(f": {feishu_sandbox.OUTSIDER}: ") == outsiders * len(CHATS)
    assert sorted(feishu_sandbox.pinned(feishu_sandbox.USER)) == sorted(CHATS)
