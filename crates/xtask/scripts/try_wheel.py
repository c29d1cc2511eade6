"""Installs the package from a folder of wheels into an empty environment, and calls a sandbox with it.

    python try_wheel.py [FOLDER]

The folder is python/dist by default. Only Python is needed: so it runs on a machine that has nothing else.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

CALL = """
import asyncio
from importlib.metadata import version

from feishu_feed_card import AsyncClient
from feishu_feed_card.sandbox import Sandbox


async def unpin():
    async with AsyncClient(*app, base_url=sandbox.base_url) as client:
        return await client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], False, timeout=20)


with Sandbox() as sandbox:
    with sandbox.client() as client:
        outcome = client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True, timeout=20)
    assert outcome.ok, outcome
    assert sandbox.pinned(sandbox.USER) == [sandbox.CHAT]
    app = ("cli_example", "example-secret")
    outcome = asyncio.run(unpin())
    assert outcome.ok, outcome
    assert sandbox.pinned(sandbox.USER) == []
print("feishu-feed-card", version("feishu-feed-card"), "pinned and unpinned")
"""


def main() -> None:
    """Installs and calls."""
    root = Path(__file__).parents[3]
    wheels = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "python/dist"
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        programs = "Scripts" if sys.platform == "win32" else "bin"
        python = [str(Path(folder, programs, "python")), "-X", "utf8"]
        # Neither a registry nor a compiler can help out where no wheel fits.
        install = [*python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
        install += ["--only-binary", ":all:", "--find-links", str(wheels), "feishu-feed-card"]
        subprocess.run(install, check=True)
        subprocess.run([*python, "-W", "error", "-c", CALL], check=True, cwd=folder, timeout=120)


main()
