"""Checks files that are to be published: wheels, a source distribution, npm packages, crates.

    python check_contents.py [--without TEXT]... FILE...

Each has both licence texts as files, no symbolic link, and a page whose links work on the registry. A native module
is for the platform in the package's name, needs no newer system than the name says, and comes with its bill of
materials. TEXT, such as a path of this machine, occurs in no file.

Needs pyelftools.
"""

import argparse
import io
import json
import re
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

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


# What a package for Linux may need of the system. glibc's loader and its parts are one library in musl.
GLIBC = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libgcc_s.so.1"}
NEEDED = {"glibc": GLIBC | {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}, "musl": {"libc.so"}}
OLDEST_GLIBC = (2, 17)
OLDEST_MACOS = (11, 0)


def platform(file: str) -> tuple[str, str]:
    """The system, with its libc, and the processor that a package's name states."""
    systems = {"manylinux": "glibc", "musllinux": "musl", "macosx": "macos", "win": "windows"}
    systems |= {"-gnu": "glibc", "-musl": "musl", "darwin": "macos", "-msvc": "windows"}
    processor = "arm64" if re.search("arm64|aarch64", file) else "x64"
    return next((name for text, name in systems.items() if text in file), "unknown"), processor


def elf_faults(elf: ELFFile, libc: str) -> Iterator[str]:
    """What is wrong with a module for Linux."""
    if any(segment.header.p_type == "PT_INTERP" for segment in elf.iter_segments()):
        yield "is a program, not a library"
    for section in elf.iter_sections():
        if isinstance(section, DynamicSection):
            needed = {tag.needed for tag in section.iter_tags("DT_NEEDED")}
            yield from (f"needs {name}" for name in sorted(needed - NEEDED[libc]))
        if isinstance(section, GNUVerNeedSection):
            for _, symbols in section.iter_versions():
                for version in (symbol.name for symbol in symbols):
                    numbers = re.fullmatch(r"GLIBC_(\d+)\.(\d+)(?:\.\d+)?", version)
                    if numbers and tuple(map(int, numbers.groups())) > OLDEST_GLIBC:
                        yield f"needs {version}"


def macos(module: bytes) -> tuple[int, int]:
    """The oldest macOS that a module runs on, from its `LC_BUILD_VERSION`."""
    (commands,) = struct.unpack_from("<I", module, 16)
    at = 32
    for _ in range(commands):
        command, size, _, oldest = struct.unpack_from("<4I", module, at)
        if command == 0x32:
            return oldest >> 16, oldest >> 8 & 0xFF
        at += size
    return (0, 0)


def module_faults(module: bytes, system: str, processor: str) -> Iterator[str]:
    """What is wrong with a native module for a platform."""
    found = "unknown"
    if module.startswith(b"\x7fELF"):
        elf = ELFFile(io.BytesIO(module))
        found = {"EM_X86_64": "x64", "EM_AARCH64": "arm64"}.get(elf.header.e_machine, "unknown")
        if system in NEEDED:
            yield from elf_faults(elf, system)
        else:
            yield f"is for Linux, not {system}"
    elif module.startswith(b"\xcf\xfa\xed\xfe"):
        found = {0x0100_0007: "x64", 0x0100_000C: "arm64"}.get(*struct.unpack_from("<I", module, 4), "unknown")
        if system != "macos" or macos(module) > OLDEST_MACOS:
            yield f"is for macOS {macos(module)}, not {system}"
    elif module.startswith(b"MZ"):
        (header,) = struct.unpack_from("<I", module, 60)
        found = {0x8664: "x64", 0xAA64: "arm64"}.get(*struct.unpack_from("<H", module, header + 4), "unknown")
        if system != "windows":
            yield f"is for Windows, not {system}"
    if found != processor:
        yield f"is for {found}, not {processor}"


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

    modules = {name: text or b"" for name, text in found.items() if name.endswith((".so", ".pyd", ".node"))}
    for name, module in modules.items():
        yield from (f"{name} {fault}" for fault in module_faults(module, *platform(file.name)))
    if modules:
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
