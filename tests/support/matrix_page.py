"""The reference of matrix.toml: its tables and keys from the models that read it.

A key without a meaning here, and a meaning without a key, are errors.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from packaging.version import Version
from pydantic import BaseModel
from pydantic.fields import FieldInfo

# The models of matrix.toml.
from imagegen.matrix.config import Matrix

WORDS: Mapping[object, str] = {
    str: "text",
    bool: "true or false",
    float: "number",
    Version: "version",
}

LISTS: Mapping[object, str] = {
    str: "list of texts",
    int: "list of whole numbers",
    Version: "list of versions",
}

AXIS = "Versions may be a minor (`12.8`) or exact (`12.8.1`)."

ABOUT: Mapping[str, str] = {
    "": "Keys at the top of the file, before the first table.",
    "publish": "Where images go.",
    "flash_attn": (
        "A release of flash-attn and, for generation 2, which of its kernels an image holds. "
        "Any number of these tables, each with a name that profiles refer to. "
        "FlashAttention-3 and -4 are installed whole: their tables hold `generation` and "
        "`version` only."
    ),
    "profile": (
        "A kind of image. Its name is a part of ids and tags: 1 to 32 of a-z, 0-9, `-` and `_`."
    ),
    "build": ("A block of combinations: each axis lists values, and all of them are crossed. ")
    + AXIS,
    "exclude": "Combinations to leave out. An axis that is not listed means any value. " + AXIS,
    "alias": "A moving tag. It has to point to exactly one target.",
}

MEANING: Mapping[str, str] = {
    "packages": (
        "Python packages of every image, beside torch and flash-attn, as requirements: `peft`"
        " or `peft>=0.17`"
    ),
    "publish.repository": (
        "The default repository: a name without tag, such as `ghcr.io/me/finetune`"
    ),
    "flash_attn.generation": "flash-attn 2, FlashAttention-3 or FlashAttention-4",
    "flash_attn.version": (
        "The release. One that the facts do not have needs a row of your own (`--facts`)"
    ),
    "flash_attn.source": (
        "`allowed`: compile if no wheel is found. `forbidden`: use wheels only. `required`: "
        "always compile, use nobody's wheel"
    ),
    "flash_attn.third_party": "Whether a third party's wheel may be used, if its hash is recorded",
    "flash_attn.preset": (
        "The kernels to start from: `full` all, `llama` head dimension 128 for training "
        "without dropout, `gpt2` head dimension 64 with dropout, `inference` all without the "
        "backward pass. The keys below override it"
    ),
    "flash_attn.archs": (
        "Compute capabilities times ten: 80 is 8.0. Empty: all that the target's nvcc can compile"
    ),
    "flash_attn.head_dims": "Head dimensions; by default the preset's",
    "flash_attn.dtypes": "Number formats; by default the preset's",
    "flash_attn.features": "Features of the kernels; by default the preset's",
    "profile.kind": (
        "`devel`: the whole CUDA toolkit on NVIDIA's image. `slim`: nvcc and one copy of the "
        "CUDA libraries"
    ),
    "profile.flash_attn": "The name of a `flash_attn` table, or `none`",
    "profile.about": "One line for people, shown where images are listed",
    "profile.budget_gb": (
        "What an image may take compressed, in GB of 10^9 bytes; a build of a larger image fails"
    ),
    "build.os": "Distributions, such as `ubuntu24.04` or `debian12`",
    "build.cuda": "CUDA toolkits",
    "build.torch": "torch releases",
    "build.profile": "Profiles",
    "exclude.reason": "Why; shown by `imagegen list --excluded`. At least 10 characters",
    "exclude.os": "Distributions",
    "exclude.cuda": "CUDA toolkits",
    "exclude.torch": "torch releases",
    "exclude.profile": "Profiles",
    "alias.name": (
        "The tag. It may hold `{os}`, `{cuda}`, `{torch}`, `{python}` and `{profile}` of a "
        "target, and is then one alias for each value"
    ),
    "alias.select": "A glob over target ids",
    "alias.newest": (
        "Whether the target with the newest torch, and then the newest CUDA, is taken from "
        "several. Without it, several are an error"
    ),
}


def matrix_page(generated: str) -> str:
    """The page; ``generated`` is the note at its head.

    Raises:
        KeyError: a table or key has no meaning here.
        ValueError: a meaning here belongs to no key.
    """
    parts = [
        f"# matrix.toml\n\n{generated}",
        "`dockerfiles/matrix.toml` says what this repository builds; `--matrix FILE` names another "
        "file. A key that is not listed here is an error; all errors are reported at once.",
    ]
    known: set[str] = set()
    for name, head, model in tables(Matrix):
        keys = {f"{name}.{key}".lstrip("."): field for key, field in _keys(model).items()}
        known |= keys.keys()
        rows = (
            f"| `{key.rpartition('.')[2]}` | {spelled(field.annotation)} | {_default(field)} "
            f"| {MEANING[key]} |"
            for key, field in keys.items()
        )
        lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows]
        parts += [f"## {head}", ABOUT[name], "\n".join(lines)]
    if stale := sorted(MEANING.keys() - known):
        raise ValueError(f"matrix.toml has no such keys: {', '.join(stale)}")
    return "\n\n".join(parts) + "\n"


def tables(root: type[BaseModel]) -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Every table: its key, its heading and its model; the file's own keys first."""
    yield "", "Top level", root
    for name, field in root.model_fields.items():
        found = _table(field.annotation)
        if found:
            form, model = found
            yield name, f"`{form.format(name)}`", model


def _keys(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys of a table that are no tables themselves."""
    return {
        name: field for name, field in model.model_fields.items() if not _table(field.annotation)
    }


def _table(annotation: Any) -> tuple[str, type[BaseModel]] | None:
    """How a key that holds tables is written in TOML, and what a table holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "[{}]", annotation
    form = {dict: "[{}.NAME]", tuple: "[[{}]]"}.get(get_origin(annotation))
    for word in get_args(annotation) if form else ():
        if isinstance(word, type) and issubclass(word, BaseModel):
            return form, word
    return None


def spelled(annotation: Any) -> str:
    """A type in the words of TOML.

    Raises:
        KeyError: it is one that no key had so far.
    """
    annotation = _bare(annotation)
    words = get_args(annotation)
    if get_origin(annotation) is Literal:
        return f"one of {_choices(annotation)}"
    if get_origin(annotation) is tuple:
        word = _bare(words[0])
        return f"list of {_choices(word)}" if get_origin(word) is Literal else LISTS[word]
    if get_origin(annotation) is types.UnionType:
        return spelled(next(word for word in words if word is not type(None)))
    return WORDS[annotation]


def _bare(annotation: Any) -> Any:
    """A type without what pydantic is told beside it."""
    return annotation.__origin__ if hasattr(annotation, "__metadata__") else annotation


def _choices(literal: Any) -> str:
    return ", ".join(f"`{word}`" for word in get_args(literal))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, tuple):
        return ", ".join(f"`{word}`" for word in value) or "empty"
    if value is None:
        return "none"
    return f"`{str(value).lower()}`"
