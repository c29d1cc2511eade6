"""Builds the site: the guide in both languages, the API references, one front page and one search.

The site is target/site. Its tools go into .scratch; compiling mdBook takes some minutes the first time.
Ends with an error at a warning of a tool or at a dead link.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from links import dead_links

ROOT = Path(__file__).resolve().parents[3]
GUIDE = ROOT / "docs/guide"
SITE = ROOT / "target/site"
TOOLS = ROOT / ".scratch/site"
NPM_TOOLS = ["pagefind@1.6.0", "typedoc@0.28.20", "typescript@6.0.3"]
MDBOOK = "mdbook@0.5.4"
CRATES = ["feishu-feed-card", "feishu-feed-card-sandbox"]

# mdBook makes index.html a copy of the first page, which would be found twice. rustdoc makes none.
REDIRECT = """<!doctype html>
<html lang="{language}" data-pagefind-ignore="all">
<meta charset="utf-8">
<title>feishu-feed-card</title>
<meta http-equiv="refresh" content="0; url={page}">
<a href="{page}">feishu-feed-card</a>
</html>
"""

# In the menu bar of each page of the guide: the way to the front page, to the other language, and the search.
BAR = """<form class="site-bar" action="{root}index.html" role="search">
<a href="{root}index.html">feishu-feed-card</a>
<a href="{root}{other}/{page}">{name}</a>
<input name="q" type="search" placeholder="{search}" aria-label="{search}">
</form>
"""
OTHER = {
    "en": {"other": "zh", "name": "中文", "search": "Search the guide and the API"},
    "zh": {"other": "en", "name": "English", "search": "搜索指南与 API 参考"},
}


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Runs a tool. A warning is an error."""
    words = [str(word) for word in command]
    print("──", Path(words[0]).name, *words[1:], flush=True)
    done = subprocess.run(words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    warned = [line for line in done.stdout.splitlines() if is_warning(line)]
    if done.returncode != 0 or warned:
        print(done.stdout)
        raise SystemExit(
            f"{Path(words[0]).name}: " + (warned[0] if warned else f"exit code {done.returncode}")
        )


def is_warning(line: str) -> bool:
    """Whether a line of the output of mdBook, cargo, pdoc, TypeDoc or Pagefind is a warning."""
    words = line.replace("[", " ").replace("]", " ").replace(":", " ").split()
    return any(word in {"WARN", "ERROR", "warning", "Warning", "UserWarning"} for word in words[:6])


def npm_tools() -> Path:
    """Installs the tools that come from npm; returns the folder of their programs."""
    stamp = TOOLS / "wanted"
    if not stamp.exists() or stamp.read_text() != " ".join(NPM_TOOLS):
        TOOLS.mkdir(parents=True, exist_ok=True)
        (TOOLS / "package.json").write_text('{ "private": true }\n')
        npm = shutil.which("npm") or "npm"
        run(npm, "install", "--no-audit", "--no-fund", "--silent", "--prefix", TOOLS, *NPM_TOOLS)
        stamp.write_text(" ".join(NPM_TOOLS))
    return TOOLS / "node_modules"


def guide() -> None:
    """Builds the guide in both languages."""
    folder = ROOT / ".scratch/mdbook"
    run("cargo", "install", MDBOOK, "--locked", "--no-default-features", "--quiet", "--root", folder)
    for language in ("en", "zh"):
        run(folder / "bin/mdbook", "build", GUIDE / language, "--dest-dir", SITE / language)
        redirect = REDIRECT.format(language=language, page="getting-started.html")
        (SITE / language / "index.html").write_text(redirect)
        # A server must be configured to show this page, and its links are wrong for a site in a folder.
        (SITE / language / "404.html").unlink()
        for file in (SITE / language).rglob("*.html"):
            page = file.relative_to(SITE / language)
            bar = BAR.format(root="../" * len(page.parts), page=page.as_posix(), **OTHER[language])
            text = file.read_text(encoding="utf-8")
            # Otherwise the title of the book is every page's title in the search.
            text = text.replace("<h1 id=", '<h1 data-pagefind-meta="title" id=', 1)
            text = text.replace('<div class="right-buttons">', f'<div class="right-buttons">{bar}')
            file.write_text(text, encoding="utf-8")
    for file in (GUIDE / "site").iterdir():
        shutil.copy(file, SITE)


def rust() -> None:
    """Builds the documentation of the crates, and of nothing else that may lie in the target folder."""
    shutil.rmtree(ROOT / "target/doc", ignore_errors=True)
    run("cargo", "doc", "--no-deps", "--locked", "--quiet", *(f"--package={name}" for name in CRATES))
    shutil.copytree(ROOT / "target/doc", SITE / "rust", ignore=shutil.ignore_patterns(".lock"))
    redirect = REDIRECT.format(language="en", page="feishu_feed_card/index.html")
    (SITE / "rust/index.html").write_text(redirect)


def python() -> None:
    """Builds the documentation of the Python package that the running interpreter has."""
    modules = ["feishu_feed_card", "feishu_feed_card.sandbox"]
    run(sys.executable, "-m", "pdoc", "--no-search", "--output-directory", SITE / "python", *modules)


def node(tools: Path) -> None:
    """Builds the documentation of the npm package."""
    entries = ["src/index.ts", "src/sandbox.ts"]
    typedoc = [
        "node",
        tools / "typedoc/bin/typedoc",
        "--treatWarningsAsErrors",
        "--tsconfig",
        "tsconfig.json",
    ]
    options = ["--name", "feishu-feed-card", "--readme", "none", "--disableSources", "--skipErrorChecking"]
    # The helper type of a parameter, which readers need not know.
    options += ["--intentionallyNotExported", "Exactly"]
    run(*typedoc, *options, "--out", SITE / "node", *entries, cwd=ROOT / "node")


def search(tools: Path) -> None:
    """Makes the index of the main part of all pages but listings of source code."""
    for file in SITE.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        main = re.sub(
            r'<(?:main|div class="col-content")(?=[ >])', r"\g<0> data-pagefind-body", text, count=1
        )
        # In a heading of rustdoc.
        main = main.replace('<button id="copy-path"', '<button data-pagefind-ignore id="copy-path"')
        file.write_text(main, encoding="utf-8")
    pages = "{en,zh,node,python,rust/feishu_feed_card,rust/feishu_feed_card_sandbox}/**/*.html"
    run(
        "node",
        tools / "pagefind/lib/runner/bin.cjs",
        "--site",
        SITE,
        "--glob",
        pages,
        "--include-characters",
        "_",
    )
    run("node", Path(__file__).with_name("check_search.mjs"), SITE)


def main() -> None:
    """Builds and checks the site."""
    shutil.rmtree(SITE, ignore_errors=True)
    tools = npm_tools()
    guide()
    python()
    node(tools)
    rust()
    search(tools)
    dead = dead_links(SITE)
    print(*dead, sep="\n")
    if dead:
        raise SystemExit(f"{len(dead)} dead links")
    files = [file for file in SITE.rglob("*") if file.is_file()]
    pages = sum(file.suffix == ".html" for file in files)
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{SITE / 'index.html'}: {pages} pages, {size:.1f} MB")


main()
