"""matrix.toml: what a project builds. Axes, exclusions with reasons, profiles, publishing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version
from pydantic import Field, model_validator

from imagegen.compat.facts.rows import Strict, Ver
from imagegen.compat.facts.tables import Facts
from imagegen.compat.facts.toml import checked, nearest, parse_toml
from imagegen.compat.sources import Policy
from imagegen.errors import FactsError
from imagegen.image.wheel.flash_attn_wheel.selection import PRESETS
from imagegen.model.target import REPOSITORY, Kind, minor

FILE = Path("dockerfiles/matrix.toml")
PROFILE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
"""A profile's name is a part of ids, of folders and of image tags."""


class Publish(Strict):
    """Where images go: ``repository`` is a name without tag, e.g. ghcr.io/me/finetune."""

    repository: str = Field(pattern=f"^{REPOSITORY}$")


NONE = "none"
"""What a profile without flash-attn says in place of a table's name."""


class Kernels(Strict):
    """A flash-attn release.

    Of generation 2: which of its kernels the image holds, those of ``preset`` where nothing else is
    said; whether it may be compiled (``source``: ``required`` takes nobody's wheel), and whether a
    third party's wheel may be taken.

    FlashAttention-3 and -4 are installed as they are: nothing of them is selected.
    """

    generation: Literal[2, 3, 4] = 2
    version: Ver
    source: Literal["allowed", "forbidden", "required"] = "allowed"
    third_party: bool = False
    preset: Literal["full", "llama", "gpt2", "inference"] = "full"
    archs: tuple[int, ...] = ()
    head_dims: tuple[Literal[32, 64, 96, 128, 192, 256], ...] = Field(
        (32, 64, 96, 128, 192, 256), min_length=1
    )
    dtypes: tuple[Literal["fp16", "bf16"], ...] = Field(("fp16", "bf16"), min_length=1)
    features: tuple[
        Literal["dropout", "alibi", "softcap", "local", "uneven_k", "backward"], ...
    ] = ("dropout", "alibi", "softcap", "local", "uneven_k", "backward")

    @property
    def policy(self) -> Policy:
        """Where it may come from."""
        return Policy(source=self.source, third_party=self.third_party)

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, data: Any) -> Any:
        preset = data.get("preset", "") if isinstance(data, dict) else ""
        return {**PRESETS.get(str(preset), {}), **data} if preset else data

    @model_validator(mode="after")
    def _selects_of_generation_2(self) -> Kernels:
        selected = sorted(self.model_fields_set - {"generation", "version"})
        if self.generation > 2 and selected:
            raise ValueError(
                f"kernels are selected of flash-attn 2 only, and generation {self.generation} is "
                f"installed whole: leave out {', '.join(selected)}"
            )
        return self


class Profile(Strict):
    """A kind of image: where CUDA comes from, and which flash-attn it holds: a table's name, or
    ``none``. ``budget_gb`` is what an image may take compressed, in GB of 10^9 bytes.
    """

    kind: Kind
    flash_attn: str
    about: str
    budget_gb: float | None = Field(None, gt=0, allow_inf_nan=False)


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
    flash_attn: dict[str, Kernels] = Field(default_factory=dict)
    profile: dict[str, Profile] = Field(min_length=1)
    build: tuple[Axes, ...] = Field(min_length=1)
    exclude: tuple[Exclude, ...] = ()
    alias: tuple[Alias, ...] = ()


def load(file: Path, facts: Facts, *, allow_unknown: bool = False) -> tuple[Matrix, Facts]:
    """The matrix in ``file``, and the facts with a row for each unknown version that was allowed.

    ``allow_unknown`` takes a torch or CUDA that no fact knows to be like the version before it.

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
    return matrix, facts


def _faults(raw: dict[str, Any], facts: Facts) -> Iterator[str]:
    """Every name that refers to nothing. Looks at the file as it is, so that one typo in a key does
    not hide the others; what has the wrong form is told by the models.
    """
    kernels, profiles = _tables(raw, "flash_attn"), _tables(raw, "profile")
    for name, profile in profiles.items():
        if not PROFILE.fullmatch(name):
            yield f"profile.{name}: a name is 1 to 32 of a-z, 0-9, - and _"
        words = _texts(profile, "flash_attn")
        yield from _unknown(f"profile.{name}.flash_attn", words, [*kernels, NONE])
    if NONE in kernels:
        yield f"flash_attn.{NONE}: the word of a profile without flash-attn, and no table's name"
    able = {str(arch) for row in facts.flash_attn for arch in row.archs}
    for name, table in kernels.items():
        # --allow-unknown does not help here: the source is checked by a hash that somebody has to
        # know. A row of one's own, with --facts, does.
        generation = table.get("generation", 2) if isinstance(table, dict) else 2
        releases = _spelled_of(facts, generation)
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


def _spelled_of(facts: Facts, generation: object) -> list[str]:
    """The releases of a generation of flash-attn; of all where there is no such generation."""
    found = [str(row.version) for row in facts.flash_attn_releases]
    of = [word for word in found if Version(word).major == generation]
    return of or found


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
