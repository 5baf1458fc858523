"""TOML in, models or every fault at once out."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from packaging.version import Version
from pydantic import BaseModel, ValidationError

from imagegen.errors import FactsError

NUMBERED = re.compile(r"([a-z]*)([0-9]+(?:\.[0-9]+)*(?:\.post[0-9]+)?)")

Model = TypeVar("Model", bound=BaseModel)


def parse_toml(text: str, place: str) -> dict[str, Any]:
    """``tomllib.loads``, with the file's name in the error.

    Raises:
        FactsError: the text is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FactsError(f"{place}: {error}") from error


def checked(model: type[Model], data: object, place: str) -> Model:
    """``data`` as a ``model``.

    Raises:
        FactsError: every fault, one a line, each with its place and the nearest valid key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = error.errors()
        deeper = {fault["loc"][:-1] for fault in faults}  # an empty list is their consequence
        lines = [
            _line(model, place, fault)
            for fault in faults
            if fault["type"] != "too_short" or fault["loc"] not in deeper
        ]
        raise FactsError("\n".join(lines)) from error


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` where something known is close, or the known words.

    Numbers are close by value: beside 12.7 are 12.6 and 12.8, whatever their letters say.
    """
    known = list(known)
    if neighbours := _neighbours(word, known):
        return f"; did you mean {' or '.join(map(repr, neighbours))}?"
    known.sort()
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _neighbours(word: str, known: Iterable[str]) -> list[str]:
    """The known words with the next lower and the next higher number, where ``word`` is one such as
    12.7, cu131 or ubuntu18.04.
    """
    mine = NUMBERED.fullmatch(word)
    if not mine:
        return []
    found = [match for match in map(NUMBERED.fullmatch, known) if match and match[1] == mine[1]]
    at = Version(mine[2])
    below = [match for match in found if Version(match[2]) < at]
    above = [match for match in found if Version(match[2]) > at]
    ends = [
        max(below, key=lambda match: Version(match[2]), default=None),
        min(above, key=lambda match: Version(match[2]), default=None),
    ]
    return [match[0] for match in ends if match]


def _line(model: type[BaseModel], place: str, fault: Mapping[str, Any]) -> str:
    path = fault["loc"]
    where = ".".join(str(part) for part in path)
    if fault["type"] == "extra_forbidden":
        return f"{place}: unknown key {where}{nearest(str(path[-1]), _fields(model, path[:-1]))}"
    if fault["type"] == "literal_error":
        expected = str(fault["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        near = nearest(str(fault["input"]), expected)
        return f"{place}: {where}: unknown value {fault['input']!r}{near}"
    if fault["type"] == "is_instance_of":
        return f"{place}: {where}: {fault['input']!r} is not a version in quotes"
    return f"{place}: {where}: {fault['msg'].removeprefix('Value error, ')}"


def _fields(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """The valid keys of the table at ``path``."""
    for part in path:
        field = model.model_fields.get(str(part))  # None: an index of a list, or a key of a dict
        inner = _model_in(field.annotation) if field else model
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model that an annotation such as ``dict[str, Profile]`` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
