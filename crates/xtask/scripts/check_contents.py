"""Checks files that are to be published: wheels, a source distribution, npm packages, crates.

    python check_contents.py [--without TEXT]... FILE...

Each holds both licences' texts as files, no symbolic link, and a page whose links work on the registry. What
is compiled comes with its bill of materials. TEXT, such as a path of this machine, occurs in no file.
"""

import argparse
import json
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path

ROOT = Path(__file__).parents[3]
LICENCES = ("LICENSE-APACHE", "LICENSE-MIT")

# name, contents; None for a symbolic link
Member = tuple[str, bytes | None]


def members(file: Path) -> Iterator[Member]:
    """All files in an archive."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            for info in wheel.infolist():
                is_link = stat.S_ISLNK(info.external_attr >> 16)
                yield info.filename, None if is_link else wheel.read(info)
    else:
        with tarfile.open(file) as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isfile() else None
                if not entry.isdir():
                    yield entry.name, content.read() if content else None


def anchors(page: str) -> set[str]:
    """The anchors that GitHub, npm and crates.io give a page's headings."""
    headings = re.findall(r"^#+ +(.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: str, has_anchors: bool) -> list[str]:
    """The links that lead nowhere from a registry's page."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page, flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: *(\S+)|(?:href|src)=\"([^\"]+)\"", text, re.MULTILINE)
    known = anchors(page) if has_anchors else set()
    return [
        target
        for target in ("".join(groups) for groups in targets)
        if not target.startswith("https://") and target.removeprefix("#") not in known
    ]


def faults(file: Path, without: list[str]) -> Iterator[str]:
    """What is wrong with a file."""
    found = dict(members(file))
    for name, content in found.items():
        if content is None:
            yield f"{name} is a link"
        else:
            yield from (f"{name} contains {text}" for text in without if text.encode() in content)

    # In a wheel the first folder is the package's; in the others it holds everything.
    is_wheel = file.suffix == ".whl"
    folder = r"[^/]+\.dist-info/licenses/" if is_wheel else r"[^/]+/"
    for licence in LICENCES:
        texts = [text for name, text in found.items() if re.fullmatch(folder + licence, name)]
        if texts != [(ROOT / licence).read_bytes()]:
            yield f"{licence} is missing or has another text"

    is_python = is_wheel or file.name.endswith(".tar.gz")
    place = r"[^/]+/README\.md"
    if is_python:
        place = r"[^/]+\.dist-info/METADATA" if is_wheel else r"[^/]+/PKG-INFO"
    pages = [text for name, text in found.items() if text and re.fullmatch(place, name)]
    if len(pages) != 1:
        yield f"there are {len(pages)} pages for the registry"
    for page in pages:
        text = BytesParser().parsebytes(page).get_payload(decode=True) if is_python else page
        assert isinstance(text, bytes)
        # PyPI gives headings no anchors.
        yield from (f"the link {link} is dead" for link in dead_links(text.decode(), not is_python))

    if any(name.endswith((".so", ".pyd", ".node")) for name in found):
        bills = [text for name, text in found.items() if text and re.search(r"sbom\.cdx\.json$", name)]
        if len(bills) != 1 or len(json.loads(bills[0])["components"]) < 50:
            yield "there is no bill of materials"


def main() -> None:
    """Checks the files that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    wrong = [f"{file.name}: {fault}" for file in arguments.files for fault in faults(file, arguments.without)]
    if wrong:
        raise SystemExit("\n".join(wrong))
    print(len(arguments.files), "files are complete")


main()
