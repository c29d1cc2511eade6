"""Installs the package from a folder of wheels into an empty environment, and calls a sandbox with it.

    python try_wheel.py [FOLDER]

FOLDER: default python/dist. Needs nothing but Python, so it runs on a machine without compilers.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path


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
        call = Path(__file__).with_name("call.py")
        subprocess.run([*python, "-W", "error", str(call)], check=True, cwd=folder, timeout=120)


main()
