"""Finds dead links in a folder of HTML pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[3]
REPOSITORY = "https://github.com/feishu-feed-card/feishu-feed-card/"
SOURCE = re.compile(re.escape(REPOSITORY) + r"(?:blob|tree)/main/([^#?]*)(?:#(.*))?")

# rustdoc copies the documentation of other crates' traits to our types, with links that only work there.
# A wrong link in our own documentation is a warning of rustdoc.
OF_OTHER_CRATES = re.compile(r".*::.*|dispatcher#setting-the-default-subscriber")


class Page(HTMLParser):
    """The links of a page, and what can be linked to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects links and anchors."""
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value)
            elif name in ("href", "src"):
                self.links.add(value)


def dead_links(site: Path) -> list[str]:
    """Returns a line for each link that is malformed or whose file or anchor does not exist."""
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    found = []
    for file, page in pages.items():
        for link in sorted(page.links):
            where = f"{file.relative_to(site)}: {link}"
            found.extend(f"{where}: {problem}" for problem in problems(site, pages, file, link))
    return found


def problems(site: Path, pages: dict[Path, Page], file: Path, link: str) -> Iterator[str]:
    """What is wrong with a link of a page."""
    if file.is_relative_to(site / "rust") and OF_OTHER_CRATES.fullmatch(link):
        return
    try:
        parts = urlsplit(link)
    except ValueError as error:
        yield str(error)
        return
    if parts.scheme in ("javascript", "data", "mailto"):
        return
    if parts.scheme or parts.netloc:
        if source := SOURCE.fullmatch(link):
            yield from in_the_clone(unquote(source[1]), source[2])
        elif parts.scheme not in ("http", "https") or not re.fullmatch(r"[\w.-]+(:\d+)?", parts.netloc):
            yield "not a URL"
        return
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(site) or not target.exists():
        yield "no such file"
    elif target in pages and parts.fragment and not has_anchor(target, pages[target], parts.fragment):
        yield "no such anchor"


def has_anchor(target: Path, page: Page, anchor: str) -> bool:
    """Whether a page has an anchor. A script makes those of rustdoc's source code, from line numbers."""
    if "src" in target.parts and re.fullmatch(r"\d+(-\d+)?", anchor):
        return True
    return anchor in page.anchors or unquote(anchor) in page.anchors


def in_the_clone(path: str, anchor: str | None) -> Iterator[str]:
    """What is wrong with a link to a file on GitHub, which is compared with the file here."""
    file = ROOT / path
    if not file.exists():
        yield "no such file in the repository"
    elif anchor and file.suffix == ".md":
        text = file.read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
        if anchor not in slugs and f'id="{anchor}"' not in text:
            yield "no such anchor in the repository's file"
