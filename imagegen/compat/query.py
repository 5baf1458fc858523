"""A question as it was written, and the values of every axis that it leaves."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from packaging.version import InvalidVersion, Version

from imagegen.compat.facts.rows import GpuFact
from imagegen.compat.facts.tables import Facts
from imagegen.compat.facts.toml import nearest
from imagegen.compat.solver import Domains
from imagegen.errors import FactsError, UsageError
from imagegen.model.target import Host, Origin, Python, cuda_word, minor

CHANGES = (
    "origin", "index", "python", "cuda", "torch", "flash_attn", "os", "memory", "driver", "host",
    "gpu",
)  # fmt: skip
"""The axes in the order in which people would rather change them: software before machines."""

OPTIONS: Mapping[str, str] = {
    "os": "--ubuntu",
    "cuda": "--cuda",
    "torch": "--torch",
    "index": "--torch-index",
    "python": "--python",
    "flash_attn": "--flash-attn",
    "origin": "--flash-attn-from",
    "host": "--arch",
    "gpu": "--gpu",
    "driver": "--driver",
    "memory": "--memory",
}
"""The option of the command line that asks for a value of an axis."""

SYNONYMS = {"amd64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64"}
"""Other people's words for a CPU architecture."""


def option(axis: str, value: str) -> str:
    """A value as one types it: ``--torch 2.9.1``, ``--debian 12``."""
    if axis == "os":
        name = value.rstrip("0123456789.")
        return f"--{name} {value.removeprefix(name)}"
    return f"{OPTIONS[axis]} {shlex.quote(value)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question as it was written; an empty axis means any value."""

    os: str = ""
    cuda: str = ""
    torch: str = ""
    index: str = ""
    python: str = ""
    flash_attn: str = ""
    origin: str = ""
    host: str = ""
    gpu: str = ""
    driver: str = ""
    memory: str = ""
    flags: str = ""
    """What else the command line had: which facts, whether unknown versions are allowed."""

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that have a value."""
        return tuple(axis for axis in CHANGES if getattr(self, axis))


def codenames(facts: Facts) -> dict[str, str]:
    """The distributions' releases by what people call them: ``noble`` is 24.04."""
    return {
        row.codename: row.os.name.removeprefix(row.distribution) for row in facts.os if row.codename
    }


def written(
    facts: Facts, *, ubuntu: str, debian: str, torch: str, index: str, **others: str
) -> Question:
    """The question of a command line: distributions with or without their names, and a torch as it
    calls itself, ``2.9.1+cu128``.

    Raises:
        UsageError: two distributions, or two CUDA builds of torch.
    """
    if ubuntu and debian:
        raise UsageError("--ubuntu and --debian: an image stands on one of them")
    torch, _, local = torch.partition("+")
    if local and index and local != index_word(index):
        raise UsageError(f"--torch …+{local} and --torch-index {index} contradict each other")
    name, release = ("ubuntu", ubuntu) if ubuntu else ("debian", debian)
    release = codenames(facts).get(release.lower(), release.removeprefix(name))
    os = f"{name}{release}" if release else ""
    return Question(os=os, torch=torch, index=index or local, **others)


def assuming(facts: Facts, question: Question) -> Facts:
    """The facts with a row for each version of the question that they do not know."""
    tables: dict[str, Callable[[Version], Sequence[object]]] = {
        "torch": facts.torch_like,
        "cuda": facts.cuda_like,
        "flash_attn": facts.flash_attn_like,
    }
    for table, like in tables.items():
        word = getattr(question, table)
        if word and word != "none" and not like(_version(word, OPTIONS[table])):
            facts = facts.assume(table, word)
    return facts


def everything(facts: Facts) -> dict[str, Sequence[Any]]:
    """All values of every axis, the preferred ones first, whatever the order of the rows."""
    return {
        "host": get_args(Host),
        "gpu": (None,),
        "driver": (None,),
        "memory": (None,),
        "flash_attn": _newest(facts.flash_attn),
        "origin": tuple(origin for origin in get_args(Origin) if origin != "third-party"),
        "torch": _newest(facts.torch),
        "index": facts.indexes,
        "python": facts.pythons,
        "cuda": _newest(facts.cuda),
        "os": tuple(sorted(facts.os, key=lambda row: (row.rank, row.os))),
        "kind": ("slim", "devel"),
        "archs": ((),),
    }


def narrowed(facts: Facts, question: Question) -> Domains:
    """The values that the question leaves.

    Raises:
        FactsError: a value is not known. UsageError: it has no such form.
    """
    domains = everything(facts)
    if question.os:
        os = facts.os_named(question.os)
        if os is None:
            raise _unknown("distribution", question.os, (row.os.name for row in facts.os))
        domains["os"] = (os,)
    for axis, rows, like in (
        ("torch", facts.torch, facts.torch_like),
        ("cuda", facts.cuda, facts.cuda_like),
        ("flash_attn", facts.flash_attn_releases, facts.flash_attn_like),
    ):
        word = getattr(question, axis)
        if word and (axis, word) != ("flash_attn", "none"):
            domains[axis] = _versions(rows, like, getattr(question, axis), axis)
    if question.flash_attn == "none":
        if question.origin:
            raise UsageError("--flash-attn none has no origin: leave out --flash-attn-from")
        domains |= {"flash_attn": (None,), "origin": ("source",)}
    if question.index:
        domains["index"] = (_index(facts, question.index),)
    elif question.torch:  # the build on PyPI is the one that can be locked by hash
        plain = {row.pypi_cuda for row in domains["torch"]}
        domains["index"] = tuple(sorted(facts.indexes, key=lambda index: index not in plain))
    if question.python:
        domains["python"] = (_python(facts, question.python),)
    for axis, known in (("origin", get_args(Origin)), ("host", get_args(Host))):
        if word := SYNONYMS.get(getattr(question, axis), getattr(question, axis)):
            if word not in known:
                raise _unknown(OPTIONS[axis], word, known)
            domains[axis] = (word,)
    if question.gpu:
        domains["gpu"] = (card(facts, question.gpu),)
    if question.driver:
        domains["driver"] = (driver(question.driver),)
    if question.memory:
        memory = question.memory.upper().removesuffix("GB").strip()
        if not memory.isdecimal():
            raise UsageError(f"--memory {question.memory!r}: a number of gigabytes, such as 16")
        domains["memory"] = (int(memory),)
    return domains


def driver(word: str) -> Version:
    """A driver's version, ``R570`` and ``570`` for a branch.

    Raises:
        UsageError: it is none; CUDA versions are taken for drivers often.
    """
    plain = re.fullmatch(r"[rR]?([0-9]+(?:\.[0-9]+)*)", word)
    found = Version(plain[1]) if plain else Version("0")
    if not 100 <= found.major < 1000:
        raise UsageError(
            f"--driver {word}: not a driver's version, such as 570.124.06; is it a CUDA version?",
            hint="nvidia-smi --query-gpu=driver_version --format=csv,noheader",
        )
    return found


def card(facts: Facts, name: str) -> GpuFact:
    """The card of that name, however it is spelled.

    Raises:
        FactsError: no fact knows it, with the nearest names.
    """
    found = facts.gpu_named(name)
    if found is None:
        names = {word.lower(): row.name for row in facts.gpu for word in (row.name, *row.also)}
        digits = max(re.findall("[0-9]+", name), key=len, default="")
        near = [word for word in names if len(digits) > 1 and digits in word]
        near = near or difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.4)
        close = list(dict.fromkeys(f"{names[word]!r}" for word in near))[:6]
        raise FactsError(
            f"no fact about a GPU {name!r}", hint=f"near: {', '.join(close)}" if close else ""
        )
    return found


def _versions(
    rows: Iterable[Any], like: Callable[[Version], Sequence[Any]], word: str, axis: str
) -> Sequence[Any]:
    found = like(_version(word, OPTIONS[axis]))
    if not found:
        short = len(word.split(".")) < 3
        known = {minor(row.version) if short else str(row.version): row.version for row in rows}
        raise _unknown(axis, word, sorted(known, key=lambda name: known[name]), allow=True)
    return found


def _version(word: str, option: str) -> Version:
    try:
        return Version(word)
    except InvalidVersion as error:
        raise UsageError(f"{option} {word!r}: not a version") from error


def _index(facts: Facts, word: str) -> Version:
    known = {cuda_word(index): index for index in reversed(facts.indexes)}
    plain = index_word(word)
    if plain not in known:
        raise _unknown("torch index", word, known)
    return known[plain]


def index_word(word: str) -> str:
    """PyTorch's word for a CUDA build, ``cu128``, however it is written: 12.8, cu12.8, CU128."""
    return re.sub(r"^(?:cu)?(\d\d)\.?(\d)$", r"cu\1\2", word.lower())


def _python(facts: Facts, word: str) -> Python:
    try:
        python = Python.parse(word)
    except ValueError as error:
        raise UsageError(f"--python: {error}") from error
    return next((known for known in facts.pythons if known == python), python)


def _unknown(what: str, word: str, known: Iterable[str], *, allow: bool = False) -> FactsError:
    hint = "--allow-unknown takes it to be like the one before it" if allow else ""
    what = what.replace("_", "-")
    return FactsError(f"no fact about {what} {word!r}{nearest(word, known)}", hint=hint)


def _newest(rows: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(rows, key=lambda row: row.version, reverse=True))
