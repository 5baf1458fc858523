"""What is on the file system of an image: runs inside it, prints one JSON object.

Only the standard library of Python 3.10 or later, and nothing else of imagegen: its text is handed
to the image's own ``python3 -I -c``. Bytes are files' lengths, and a file with several names counts
once, at the first of them in the order of paths.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import stat
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LEFT_OUT = {"/proc", "/sys", "/dev"}
LARGE = 1_000_000
"""Bytes from which a file that is there twice is worth a word."""
ROOM = 600_000
"""Characters that the tree may take as JSON."""
DEEPEST = 24
"""Levels of folders that the tree shows; what is deeper is summed up."""
ENVIRONMENT = {"pyvenv.cfg", "conda-meta"}
"""What the folder of a Python environment holds."""
SITE = re.compile(r"/(?:site|dist)-packages/")
SONAME = re.compile(r"(lib[^/]+?\.so\.\d+)(?:\.[\d.]+)?$")
CUDA = re.compile(r"/(?:site|dist)-packages/nvidia(?:/|_)|^/usr/local/cuda|/lib(?:cudnn|nccl|cuda)")
TORCH = re.compile(r"/(?:site|dist)-packages/(?:torch|functorch|triton)(?:[^/]*)/")
APT = ("/var/lib/dpkg/", "/var/lib/apt/", "/var/cache/apt/")

Row = dict[str, Any]


@dataclass
class Folder:
    """A folder as it was walked: ``own`` are its files, as (name, bytes, kind)."""

    folders: dict[str, Folder] = field(default_factory=dict)
    own: list[tuple[str, int, str]] = field(default_factory=list)
    bytes: int = 0
    kinds: dict[str, int] = field(default_factory=lambda: defaultdict(int))


@dataclass
class Walk:
    """What a walk over the file system found."""

    root: Folder
    files: int = 0
    large: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    libraries: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    metadata: list[str] = field(default_factory=list)


def readable(name: str) -> str:
    """A path as text that any program can read, whatever bytes it has."""
    return os.fsencode(name).decode("utf-8", "replace")


# --- the file system ------------------------------------------------------------------------------


def walk(owned: set[str]) -> Walk:
    """Every regular file of the root's file system; ``owned`` are the paths of dpkg's packages."""
    seen, inodes = Walk(Folder()), set()
    device = os.stat("/").st_dev
    todo = [("", seen.root, False)]
    while todo:
        path, folder, within = todo.pop()
        entries = listed(path or "/")
        within = within or any(entry.name in ENVIRONMENT for entry, _ in entries)
        for entry, facts in entries:
            at = f"{path}/{entry.name}"
            if stat.S_ISDIR(facts.st_mode):
                if facts.st_dev == device and at not in LEFT_OUT:
                    todo.append((at, folder.folders.setdefault(entry.name, Folder()), within))
                    if entry.name.endswith((".dist-info", ".egg-info")) and SITE.search(at):
                        seen.metadata.append(at)
            elif stat.S_ISREG(facts.st_mode):
                key = (facts.st_dev, facts.st_ino)
                if facts.st_nlink == 1 or key not in inodes:
                    inodes.add(key)
                    sort = kind(at, owned)
                    sort = "python" if sort == "other" and within else sort
                    note(seen, folder, at, facts.st_size, sort)
    total(seen.root)
    return seen


def listed(path: str) -> list[tuple[os.DirEntry[str], os.stat_result]]:
    """What a folder holds, in the order of names; nothing where it cannot be read."""
    try:
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
            return [(entry, entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError:
        return []


def note(seen: Walk, folder: Folder, path: str, size: int, sort: str) -> None:
    """Write down one file."""
    name = path.rpartition("/")[2]
    folder.own.append((name, size, sort))
    seen.files += 1
    if size > LARGE:
        seen.large[size].append(path)
    if soname := SONAME.match(name):
        seen.libraries[soname[1]].append((path, size))
    if name.endswith(".egg-info") and SITE.search(path):
        seen.metadata.append(path)


def kind(path: str, owned: set[str]) -> str:
    """What a file belongs to: cuda, torch, python, apt or other."""
    if CUDA.search(path):
        return "cuda"
    if path in owned or path.startswith(APT):
        return "apt"
    if TORCH.search(path):
        return "torch"
    return "python" if SITE.search(path) else "other"


def total(folder: Folder) -> None:
    """Sum a folder up, the inner ones first."""
    for inner in folder.folders.values():
        total(inner)
        folder.bytes += inner.bytes
        for sort, size in inner.kinds.items():
            folder.kinds[sort] += size
    for _, size, sort in folder.own:
        folder.bytes += size
        folder.kinds[sort] += size


def row(name: str, size: int, sort: str, inner: list[Row]) -> Row:
    """One node of the tree."""
    return {"name": readable(name), "bytes": size, "kind": sort, "children": inner}


def foremost(kinds: dict[str, int]) -> str:
    """The kind that most of the bytes are of."""
    return max(sorted(kinds), key=lambda sort: kinds[sort], default="other")


def pruned(name: str, folder: Folder, least: int, depth: int = 0) -> Row:
    """The folder without what has fewer than ``least`` bytes, which is summed as ``other``."""
    rows: list[Row] = []
    rest: dict[str, int] = defaultdict(int)
    for inner_name, inner in folder.folders.items():
        if inner.bytes >= least and depth < DEEPEST:
            rows.append(pruned(inner_name, inner, least, depth + 1))
        else:
            for sort, size in inner.kinds.items():
                rest[sort] += size
    for file, size, sort in folder.own:
        if size >= least and depth < DEEPEST:
            rows.append(row(file, size, sort, []))
        else:
            rest[sort] += size
    if left := sum(rest.values()):
        if not rows:
            return row(name, left, foremost(rest), [])
        rows.append(row("(other)", left, foremost(rest), []))
    rows.sort(key=lambda one: (-one["bytes"], one["name"]))
    return row(name, folder.bytes, foremost(folder.kinds), rows)


def tree(root: Folder) -> Row:
    """As much of the file system as there is room for."""
    least = max(1, root.bytes // 20_000)
    while True:
        found = pruned("/", root, least)
        if len(json.dumps(found)) <= ROOM:
            return found
        least *= 2


# --- what is there twice --------------------------------------------------------------------------


def digest(path: str, length: int = -1) -> str:
    """The sha256 of a file, or of its first bytes."""
    made = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20 if length < 0 else length):
            made.update(block)
            if length >= 0:
                break
    return made.hexdigest()


def alike(paths: list[str], length: int = -1) -> dict[str, list[str]]:
    """Paths by the digest of their content; what cannot be read is left out."""
    groups = defaultdict(list)
    for path in paths:
        try:
            groups[digest(path, length)].append(path)
        except OSError:
            continue
    return groups


def copies(large: dict[int, list[str]]) -> list[Row]:
    """Large files that have the same bytes and are no hard links of one another."""
    found = []
    for size, paths in large.items():
        if len(paths) < 2:
            continue
        for some in alike(paths, 65_536).values():
            for sha256, same in alike(some).items() if len(some) > 1 else ():
                if len(same) > 1:
                    names = sorted(map(readable, same))
                    found.append({"bytes": size, "sha256": sha256, "paths": names})
    return sorted(found, key=lambda one: (-one["bytes"] * (len(one["paths"]) - 1), one["sha256"]))


def versions(libraries: dict[str, list[tuple[str, int]]]) -> list[Row]:
    """Libraries of one name and major number whose bytes differ from place to place."""
    found = []
    for soname, places in sorted(libraries.items()):
        if len(places) < 2:
            continue
        if len({size for _, size in places}) < 2 and len(alike([p for p, _ in places])) < 2:
            continue
        rows = [{"path": readable(path), "bytes": size} for path, size in sorted(places)]
        found.append({"soname": readable(soname), "places": rows})
    return found


# --- packages -------------------------------------------------------------------------------------


def text(path: str) -> str:
    """What a file says; nothing where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def fields(paragraph: str) -> Iterator[tuple[str, str]]:
    """The headers of an RFC 822 text, its continued lines left out."""
    for line in paragraph.splitlines():
        if not line:
            return
        name, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            yield name, value.strip()


def dpkg() -> list[Row]:
    """The installed packages, by dpkg's own database: deb-control(5)."""
    found = []
    folder = "/var/lib/dpkg/status.d"  # of images that have packages and no dpkg
    parts = [f"{folder}/{name}" for name in os.listdir(folder)] if os.path.isdir(folder) else []
    for file in ["/var/lib/dpkg/status", *parts]:
        for paragraph in text(file).split("\n\n"):
            values = dict(fields(paragraph))
            state = values.get("Status", "install ok installed").split()
            if "Package" not in values or "Version" not in values or state[-1] != "installed":
                continue
            source = values.get("Source", values["Package"]).split()
            found.append(
                {
                    "name": values["Package"],
                    "version": values["Version"],
                    "arch": values.get("Architecture", ""),
                    "bytes": int(values.get("Installed-Size", "0") or 0) * 1024,
                    "source": source[0],
                }
            )
    return sorted(found, key=lambda one: (one["name"], one["arch"]))


def owned() -> set[str]:
    """Every path of dpkg's packages, with /lib and its like where they really are."""
    folder, found = "/var/lib/dpkg/info", set()
    names = os.listdir(folder) if os.path.isdir(folder) else []
    moved = {
        f"/{name}": os.path.realpath(f"/{name}")
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
        if os.path.islink(f"/{name}")
    }
    for name in names:
        if name.endswith(".list"):
            for line in text(f"{folder}/{name}").splitlines():
                top, slash, rest = line[1:].partition("/")
                found.add(f"{moved.get('/' + top, '/' + top)}{slash}{rest}")
    return found


def recorded(folder: str) -> int | None:
    """Bytes of the files of a Python package by its RECORD; None where it has none."""
    rows = text(f"{folder}/RECORD")
    if not rows:
        return None
    count = 0
    for one in csv.reader(io.StringIO(rows)):
        if len(one) != 3:
            continue
        if one[2].isdecimal():
            count += int(one[2])
        else:  # compiled when it was installed
            try:
                count += os.lstat(os.path.join(os.path.dirname(folder), one[0])).st_size
            except OSError:
                continue
    return count


def python(metadata: list[str]) -> list[Row]:
    """The installed Python packages of every environment: core metadata, PEP 566 and 639."""
    found: dict[tuple[str, str, str], Row] = {}
    for at in sorted(metadata):
        location = os.path.dirname(at)
        if not location.endswith(("/site-packages", "/dist-packages")):
            continue
        file = at if os.path.isfile(at) else f"{at}/METADATA"
        said = list(fields(text(file) or text(f"{at}/PKG-INFO")))
        values = dict(reversed(said))
        if "Name" not in values or "Version" not in values:
            continue
        classes = [value for name, value in said if name == "Classifier" and "License ::" in value]
        words = values.get("License", "") or ", ".join(one.rpartition(" :: ")[2] for one in classes)
        row = {
            "name": values["Name"],
            "version": values["Version"],
            "location": readable(location),
            "bytes": recorded(at),
            "license": words[:200],
            "expression": values.get("License-Expression", ""),
        }
        # Debian's cryptography has both a dist-info and an egg-info; the former sorts first
        found.setdefault((values["Name"], values["Version"], location), row)
    return sorted(found.values(), key=lambda one: (one["name"].lower(), one["location"]))


def release() -> dict[str, str]:
    """The distribution's name and release: os-release(5)."""
    lines = (line.partition("=") for line in text("/etc/os-release").splitlines())
    values = {name: value.strip("\"'") for name, _, value in lines}
    return {"id": values.get("ID", ""), "version": values.get("VERSION_ID", "")}


def main() -> None:
    """Print all of it."""
    seen = walk(owned())
    found = {
        "os": release(),
        "files": seen.files,
        "bytes": seen.root.bytes,
        "kinds": dict(sorted(seen.root.kinds.items())),
        "dpkg": dpkg(),
        "python": python(seen.metadata),
        "tree": tree(seen.root),
        "copies": copies(seen.large),
        "versions": versions(seen.libraries),
    }
    json.dump(found, sys.stdout, ensure_ascii=True, separators=(",", ":"))


if __name__ == "__main__":
    main()
