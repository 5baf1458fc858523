"""matrix.toml: what a workspace builds. Axes, exclusions with reasons, profiles, publishing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version
from pydantic import Field

from imagegen.errors import FactsError
from imagegen.facts import Facts, Strict, Ver, checked, nearest, parse_toml
from imagegen.model import REPOSITORY, Kind, minor

FILE = Path("dockerfiles/matrix.toml")
PROFILE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
"""A profile's name is a part of ids, of folders and of image tags."""


class Publish(Strict):
    """Where images go: ``repository`` is a name without tag, e.g. ghcr.io/me/finetune."""

    repository: str = Field(pattern=f"^{REPOSITORY}$")


class Kernels(Strict):
    """A flash-attn 2 release and which of its kernels to compile; left out means all."""

    version: Ver
    archs: tuple[int, ...] = ()
    head_dims: tuple[Literal[32, 64, 96, 128, 192, 256], ...] = Field(
        (32, 64, 96, 128, 192, 256), min_length=1
    )
    dtypes: tuple[Literal["fp16", "bf16"], ...] = Field(("fp16", "bf16"), min_length=1)
    features: tuple[
        Literal["dropout", "alibi", "softcap", "local", "uneven_k", "backward"], ...
    ] = ("dropout", "alibi", "softcap", "local", "uneven_k", "backward")


class Profile(Strict):
    """A kind of image: where CUDA comes from, and which flash-attn kernels it holds."""

    kind: Kind
    flash_attn: str
    about: str


class Axes(Strict):
    """A block of combinations: each axis lists values, and all are crossed."""

    os: tuple[str, ...] = Field(min_length=1)
    cuda: tuple[Ver, ...] = Field(min_length=1)
    torch: tuple[Ver, ...] = Field(min_length=1)
    profile: tuple[str, ...] = Field(min_length=1)


class Exclude(Strict):
    """Combinations to leave out, and why; an axis left out of it means any value."""

    reason: str = Field(min_length=10)
    os: tuple[str, ...] = ()
    cuda: tuple[Ver, ...] = ()
    torch: tuple[Ver, ...] = ()
    profile: tuple[str, ...] = ()


class Alias(Strict):
    """A moving tag: ``name`` may hold {os}, {cuda}, {torch}, {python} and {profile} of a target.

    ``select`` is a glob over target ids; with ``newest`` the newest torch and then CUDA is taken.
    """

    name: str = Field(min_length=1)
    select: str
    newest: bool = False


class Matrix(Strict):
    """The whole file. ``packages`` go into every image, beside torch and flash-attn."""

    publish: Publish
    packages: tuple[str, ...] = Field(min_length=1)
    flash_attn: dict[str, Kernels] = Field(min_length=1)
    profile: dict[str, Profile] = Field(min_length=1)
    build: tuple[Axes, ...] = Field(min_length=1)
    exclude: tuple[Exclude, ...] = ()
    alias: tuple[Alias, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """A folder with a matrix: ``folder`` holds matrix.toml, rendered files and locks.

    ``facts`` are those given, and a row for each unknown version of the matrix that was allowed.
    """

    folder: Path
    matrix: Matrix
    facts: Facts

    @property
    def locks(self) -> Path:
        """Where the locks are."""
        return self.folder / "locks"


def load(file: Path, facts: Facts, *, allow_unknown: bool = False) -> Workspace:
    """The workspace whose matrix is ``file``; ``allow_unknown`` takes a torch or CUDA that no
    fact knows to be like the version before it.

    Raises:
        FactsError: there is no such file, or it has faults: all of them, each with its place.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise FactsError(
            f"{file}: {error.strerror}",
            hint="run imagegen in the folder that holds dockerfiles/, or give --matrix FILE",
        ) from error
    except UnicodeDecodeError as error:
        raise FactsError(f"{file}: not UTF-8 at byte {error.start}") from error
    raw = parse_toml(text, str(file))
    if allow_unknown:
        facts = _assuming(raw, facts)
    faults = [f"{file}: {fault}" for fault in _faults(raw, facts)]
    try:
        matrix = checked(Matrix, raw, str(file))
    except FactsError as error:
        raise FactsError("\n".join([str(error), *faults])) from error
    if faults:
        raise FactsError("\n".join(faults))
    return Workspace(folder=file.parent, matrix=matrix, facts=facts)


def _faults(raw: dict[str, Any], facts: Facts) -> Iterator[str]:
    """Every name that refers to nothing. Looks at the file as it is, so that one typo in a key does
    not hide the others; what has the wrong form is told by the models.
    """
    kernels, profiles = _tables(raw, "flash_attn"), _tables(raw, "profile")
    for name, profile in profiles.items():
        if not PROFILE.fullmatch(name):
            yield f"profile.{name}: a name is 1 to 32 of a-z, 0-9, - and _"
        yield from _unknown(f"profile.{name}.flash_attn", _texts(profile, "flash_attn"), kernels)
    releases = [str(row.version) for row in facts.flash_attn]
    able = {str(arch) for row in facts.flash_attn for arch in row.archs}
    for name, table in kernels.items():
        # --allow-unknown does not help here: the source is checked by a hash that somebody has to
        # know. A row of one's own, with --facts, does.
        for fault in _unknown(f"flash_attn.{name}.version", _texts(table, "version"), releases):
            yield f"{fault} (a release of your own needs its row and hash: --facts)"
        archs = table.get("archs", []) if isinstance(table, dict) else []
        words = [str(arch) for arch in archs] if isinstance(archs, list) else []
        yield from _unknown(f"flash_attn.{name}.archs", words, able)
        if len(words) != len(set(words)):
            yield f"flash_attn.{name}.archs: one of them is named twice"
    for word in _texts(raw, "packages"):
        try:
            Requirement(word)
        except InvalidRequirement:
            yield f"packages: {word!r} is not a requirement such as 'peft' or 'peft>=0.17'"
    known = {
        "os": [row.os.name for row in facts.os],
        "cuda": _spelled(row.version for row in facts.cuda),
        "torch": _spelled(row.version for row in facts.torch),
        "profile": list(profiles),
    }
    for kind in ("build", "exclude"):
        for i, block in enumerate(_blocks(raw, kind)):
            for axis, values in known.items():
                yield from _unknown(f"{kind}.{i}.{axis}", _texts(block, axis), values)


def _assuming(raw: dict[str, Any], facts: Facts) -> Facts:
    """The facts with a row for each version in the file that they do not know."""
    for table in ("torch", "cuda"):
        for block in _blocks(raw, "build"):
            for word in _texts(block, table):
                if word not in _spelled(row.version for row in getattr(facts, table)):
                    with suppress(FactsError):  # told by _faults, with its place and all others
                        facts = facts.assume(table, word)
    return facts


def _spelled(versions: Iterable[Version]) -> list[str]:
    """How a version may be written: its minor, or exactly."""
    found = list(versions)
    return [*dict.fromkeys(map(minor, found)), *map(str, found)]


def _blocks(raw: dict[str, Any], kind: str) -> list[Any]:
    blocks = raw.get(kind)
    return blocks if isinstance(blocks, list) else []


def _tables(raw: dict[str, Any], key: str) -> dict[str, object]:
    found = raw.get(key)
    return found if isinstance(found, dict) else {}


def _texts(table: object, key: str) -> list[str]:
    """The strings under ``key``: of a list, or the one that it is."""
    found = table.get(key) if isinstance(table, dict) else None
    values = found if isinstance(found, list) else [found]
    return [value for value in values if isinstance(value, str)]


def _unknown(place: str, words: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    names = list(known)
    for word in words:
        if word not in names:
            yield f"{place}: unknown value {word!r}{nearest(word, names)}"
