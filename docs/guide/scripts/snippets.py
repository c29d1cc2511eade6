"""Executes the code blocks of the READMEs and of the guide, each against a sandbox of its own.

    python snippets.py [--third-party] [FILE.md ...] [-- COMMAND ...]

Blocks in `python`, `js`, `ts` and `sh` are programs. Words after the language change what happens to a block:

- `third-party`: needs packages of docs/guide/recipes; executed with --third-party only.
- `python-only`, `node-only`, `rust-only`: a command of the guide's first page; recipes.py executes it.
- `ignore`: not executed.

A comment `<!-- before ... -->` or `<!-- after ... -->` next to a block is run with it, in the same program.
COMMAND runs at the end with the same environment: cargo executes the blocks in Rust as documentation tests.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
GUIDE = ROOT / "docs/guide"
READMES = ("README.md", "README.zh-CN.md", "python/README.md", "crates/sandbox/README.md")
LANGUAGES = ("python", "js", "ts", "sh")
ELSEWHERE = {"ignore", "python-only", "node-only", "rust-only"}
SECONDS = 120

FENCE = re.compile(r"(?P<indent> *)(?P<ticks>`{3,})(?P<words>.*)")
COMMENT = re.compile(r"<!-- (before|after)\n(.*?)-->", re.DOTALL)

# Runs the program in a file as `__main__`, under the name of the page, with `await` at the top level.
RUN_PYTHON = """
import ast, asyncio, inspect, sys, types
with open(sys.argv[1], encoding="utf-8") as file:
    source = file.read()
code = compile(source, sys.argv[2], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True)
module = sys.modules["__main__"] = types.ModuleType("__main__")
program = types.FunctionType(code, module.__dict__)
if code.co_flags & inspect.CO_COROUTINE:
    asyncio.run(program())
else:
    program()
"""


@dataclass
class Block:
    """A fenced block, with the hidden code beside it."""

    page: Path
    line: int
    language: str
    words: list[str]
    code: str
    before: str = ""
    after: str = ""

    @property
    def program(self) -> str:
        """The whole program. Its lines have their numbers in the page, unless hidden code moves them."""
        padding = self.line - self.before.count("\n")
        return "\n" * max(padding, 0) + self.before + self.code + self.after

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page}:{self.line}"


@dataclass
class Reader:
    """The blocks of a page. A fence without a language is an error: rustdoc would take it for Rust."""

    page: Path
    blocks: list[Block] = field(default_factory=list)

    def read(self, text: str) -> list[Block]:
        """Reads the page; includes are left to mdBook, which shows files that the recipes test."""
        lines = text.split("\n")
        number = 0
        hidden = ""
        while number < len(lines):
            line = lines[number]
            if line.startswith(("<!-- before", "<!-- after")):
                end = next(at for at in range(number, len(lines)) if lines[at].endswith("-->"))
                comment = COMMENT.fullmatch("\n".join(lines[number : end + 1]).strip())
                if comment is None:
                    raise SystemExit(
                        f"{self.page}:{number + 1}: expected `<!-- before`, code in lines, and `-->`"
                    )
                if comment[1] == "before":
                    hidden = comment[2]
                else:
                    self.blocks[-1].after += comment[2]
                number = end
            elif fence := FENCE.fullmatch(line):
                end = number + 1
                while lines[end].strip() != fence["ticks"]:
                    end += 1
                language, *words = fence["words"].strip().split(",")
                if not language:
                    raise SystemExit(f"{self.page}:{number + 1}: the block needs a language, such as `text`")
                indent = len(fence["indent"])
                code = "".join(inner[indent:] + "\n" for inner in lines[number + 1 : end])
                self.blocks.append(Block(self.page, number + 1, language, words, code, hidden))
                hidden = ""
                number = end
            number += 1
        return self.blocks


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page, in any language."""
    return Reader(page).read(page.read_text(encoding="utf-8"))


@dataclass
class Runtime:
    """The programs that execute blocks, and the folder they do it in."""

    folder: Path
    python: str
    path: list[str]

    def __post_init__(self) -> None:
        for folder in self.folder.glob("block-*"):
            shutil.rmtree(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = {name: value for name, value in os.environ.items() if not is_ours(name)}
        self.environment["PATH"] = os.pathsep.join([*self.path, self.environment["PATH"]])
        self.environment["PYTHONUTF8"] = "1"

    def command(self, block: Block, folder: Path) -> list[str]:
        """Writes the program into the folder; returns how to run it."""
        program = block.program
        if block.language == "python":
            is_test = re.search(r"^(async )?def test_", program, re.MULTILINE)
            file = folder / ("test_snippet.py" if is_test else "snippet.py")
            file.write_text(program, encoding="utf-8")
            if is_test:
                return [self.python, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
            return [self.python, "-W", "error", "-c", RUN_PYTHON, str(file), str(block.page)]
        if block.language == "sh":
            return ["sh", "-eu", "-c", program.lstrip("\n")]
        if block.language == "ts":
            file = folder / "snippet.mts"
            file.write_text(program, encoding="utf-8")
            self.compile(file)
            return ["node", "--enable-source-maps", str(file.with_suffix(".mjs"))]
        file = folder / ("snippet.cjs" if "require(" in program else "snippet.mjs")
        file.write_text(program, encoding="utf-8")
        return ["node", "--throw-deprecation", str(file)]

    def compile(self, file: Path) -> None:
        """Type-checks a TypeScript program and writes it as JavaScript."""
        node = ROOT / "node/node_modules"
        tsc = [
            "node",
            str(node / "typescript-5/bin/tsc"),
            "--strict",
            "--target",
            "es2022",
            "--module",
            "nodenext",
        ]
        tsc += ["--skipLibCheck", "--lib", "es2023,esnext.disposable", "--sourceMap"]
        tsc += ["--typeRoots", str(node / "@types"), "--types", "node", str(file)]
        subprocess.run(tsc, check=True, cwd=self.folder, stdout=sys.stderr)

    def run(self, block: Block, environment: dict[str, str]) -> bool:
        """Executes a block; prints its output if it fails."""
        folder = Path(tempfile.mkdtemp(prefix="block-", dir=self.folder))
        try:
            program = subprocess.Popen(
                self.command(block, folder),
                cwd=folder,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                start_new_session=True,
            )
            output, _ = program.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            # With the programs that it has started.
            if os.name == "posix":
                os.killpg(program.pid, signal.SIGKILL)
            program.kill()
            print(f"{block}: not finished after {SECONDS} s\n{program.communicate()[0]}")
            return False
        except subprocess.CalledProcessError:
            print(f"{block}: does not compile")
            return False
        if program.returncode != 0:
            print(f"{block}: exit code {program.returncode}\n{output}")
        shutil.rmtree(folder, ignore_errors=True)
        return program.returncode == 0


def is_ours(name: str) -> bool:
    """Whether a variable of the machine would change what a client does."""
    return name.startswith("FEISHU_") or name.upper().endswith("_PROXY")


def of_the_clone() -> Runtime:
    """The packages as they are built in the clone: the interpreter that runs this has the Python one."""
    folder = ROOT / ".scratch/snippets"
    link(ROOT / "node", folder / "node_modules/feishu-feed-card")
    (folder / "package.json").write_text('{ "private": true }\n')
    return Runtime(folder, sys.executable, [str(Path(sys.executable).parent)])


def link(to: Path, at: Path) -> None:
    """Lets Node find a package. Windows has junctions, which need no privilege."""
    at.parent.mkdir(parents=True, exist_ok=True)
    if at.is_symlink() or at.exists():
        return
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(to), str(at))
    else:
        at.symlink_to(to)


def sandbox_environment(sandbox: object) -> dict[str, str]:
    """What lets `from_env` find a sandbox."""
    from feishu_feed_card.sandbox import Sandbox

    assert isinstance(sandbox, Sandbox)
    return {
        "FEISHU_APP_ID": sandbox.APP_ID,
        "FEISHU_APP_SECRET": sandbox.APP_SECRET,
        "FEISHU_BASE_URL": sandbox.base_url,
    }


def execute(runtime: Runtime, blocks: list[Block]) -> int:
    """Executes blocks; returns how many failed."""
    from feishu_feed_card.sandbox import Sandbox

    failed = 0
    for block in blocks:
        with Sandbox() as sandbox:
            failed += not runtime.run(block, sandbox_environment(sandbox))
    return failed


def can_fail(runtime: Runtime) -> None:
    """Makes sure that a wrong program is found in each language."""
    page = ROOT / "README.md"
    wrong = {"python": "import warnings; warnings.warn('x')\n", "js": "await fetch('x')\n"}
    wrong |= {"sh": "false\n"} if os.name == "posix" else {}
    blocks = [Block(page, 1, language, [], code) for language, code in wrong.items()]
    with contextlib.redirect_stdout(io.StringIO()):
        failed = execute(runtime, blocks)
    if failed != len(blocks):
        raise SystemExit("a block that must fail has passed")


def pages() -> list[Path]:
    """The READMEs and the guide."""
    return [ROOT / name for name in READMES] + sorted(GUIDE.glob("*/src/**/*.md"))


def without_doctest(blocks: list[Block]) -> list[Block]:
    """Blocks in Rust on pages of the guide that are not in the crate's list."""
    listed = (ROOT / "crates/xtask/src/lib.rs").read_text()
    return [
        block
        for block in blocks
        if block.language == "rust"
        and block.page.is_relative_to(GUIDE)
        and f'"{block.page.relative_to(GUIDE).as_posix()}"' not in listed
    ]


def main() -> int:
    """Executes what the command line names."""
    arguments, command = sys.argv[1:], []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, command = arguments[:at], arguments[at + 1 :]
    third_party = "--third-party" in arguments
    files = [Path(name).resolve() for name in arguments if not name.startswith("--")]
    began = time.monotonic()

    blocks = [block for page in files or pages() for block in blocks_of(page)]
    for block in (unlisted := without_doctest(blocks)):
        print(f"{block}: the page is not in the list of crates/xtask/src/lib.rs")
    languages = LANGUAGES if os.name == "posix" else LANGUAGES[:-1]
    mine = [
        block
        for block in blocks
        if block.language in languages
        and not ELSEWHERE & set(block.words)
        and "{{#include" not in block.code
        and ("third-party" in block.words) == third_party
    ]
    if third_party:
        from recipes import third_party as with_packages

        runtime = with_packages(built="--built" in arguments)
    else:
        runtime = of_the_clone()
    can_fail(runtime)
    failed = execute(runtime, mine) + len(unlisted)
    counts = f"{len(mine) - failed} passed" + (f", {failed} failed" if failed else "")
    print(f"code blocks: {counts} in {time.monotonic() - began:.1f}s", flush=True)
    if command and not failed:
        from feishu_feed_card.sandbox import Sandbox

        with Sandbox() as sandbox:
            failed = subprocess.run(command, env={**os.environ, **sandbox_environment(sandbox)}).returncode
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
