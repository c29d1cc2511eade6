"""Checks that pyright refuses the marked lines of `wrong_uses.py` and no others.

`test_typing.py` does the same with mypy. This is a script, because pyright comes from npm.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

WRONG = Path(__file__).with_name("wrong_uses.py")
PROJECT = WRONG.parents[2]
PYRIGHT = PROJECT.parent / "node" / "node_modules" / "pyright" / "index.js"


def main() -> None:
    command = ["node", PYRIGHT, "--project", PROJECT, "--pythonpath", sys.executable, "--outputjson", WRONG]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    found = {
        diagnostic["range"]["start"]["line"] + 1
        for diagnostic in json.loads(ended.stdout)["generalDiagnostics"]
        if diagnostic["severity"] == "error"
    }
    lines = enumerate(WRONG.read_text(encoding="utf-8").splitlines(), 1)
    expected = {number for number, line in lines if "# expect: " in line}
    if found != expected or not expected:
        sys.exit(f"accepted: lines {sorted(expected - found)}; refused: lines {sorted(found - expected)}")


if __name__ == "__main__":
    main()
