"""The compatibility facts that come with imagegen: data/*.toml, checked as they are read."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cache
from importlib import resources
from typing import Annotated, Any, TypeVar, get_args

from packaging.version import InvalidVersion, Version
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
)

from imagegen.errors import FactsError
from imagegen.model import Kind, Os, minor


def _version(value: object) -> object:
    try:
        return Version(value) if isinstance(value, str) else value
    except InvalidVersion as error:
        raise ValueError(f"{value!r} is not a version") from error


Model = TypeVar("Model", bound=BaseModel)
Ver = Annotated[InstanceOf[Version], BeforeValidator(_version)]


class Strict(BaseModel):
    """A table of a TOML file: frozen, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Sourced(Strict):
    """A fact: where it was read and when."""

    source: str
    checked: date


class TorchFact(Sourced):
    """One PyTorch release on Linux x86_64.

    ``cuda`` are the CUDA versions (major.minor) that it is built for; ``pypi_cuda`` is the one of
    the plain PyPI wheel; ``toolkit`` is the cuda-toolkit release that a CUDA 13 wheel pins.
    """

    version: Ver
    released: date
    pythons: tuple[Ver, ...]
    cuda: tuple[Ver, ...]
    pypi_cuda: Ver
    torchvision: Ver
    toolkit: Ver | None = None


class BaseFact(Strict):
    """An nvidia/cuda image. ``confidence`` is ``guess`` where the digest has a single witness."""

    os: str
    kind: Kind
    tag: str
    digest: str
    confidence: str


class CudaFact(Sourced):
    """A CUDA toolkit: its oldest driver, the limits of nvcc's host compiler, its base images."""

    version: Ver
    driver: Ver
    gcc_max: int
    glibc_max: Ver
    base: tuple[BaseFact, ...] = ()


class OsFact(Sourced):
    """A distribution's release and what it ships."""

    distribution: str
    version: Ver
    python: Ver
    gcc: int
    glibc: Ver
    tag: str
    digest: str

    @property
    def os(self) -> Os:
        """The release as a value."""
        return Os(distribution=self.distribution, version=self.version)


class FlashAttnFact(Sourced):
    """A flash-attn source release; ``archs`` maps compute capability x 10 to the oldest CUDA."""

    version: Ver
    sha256: str
    archs: Mapping[int, Ver]


class Facts(Strict):
    """All facts, one table of each kind.

    ``driver_cuda`` are the CUDA versions that a driver can report, oldest first.
    """

    driver_cuda: tuple[Ver, ...] = Field(min_length=1)
    torch: tuple[TorchFact, ...] = Field(min_length=1)
    cuda: tuple[CudaFact, ...] = Field(min_length=1)
    os: tuple[OsFact, ...] = Field(min_length=1)
    flash_attn: tuple[FlashAttnFact, ...] = Field(min_length=1)

    def torch_minor(self, wanted: Version) -> TorchFact | None:
        """The newest release of that minor."""
        rows = [row for row in self.torch if minor(row.version) == minor(wanted)]
        return max(rows, key=lambda row: row.version, default=None)

    def cuda_minor(self, wanted: Version) -> CudaFact | None:
        """The newest toolkit of that minor."""
        rows = [row for row in self.cuda if minor(row.version) == minor(wanted)]
        return max(rows, key=lambda row: row.version, default=None)

    def os_named(self, name: str) -> OsFact | None:
        """The release that is spelled ``name`` in ids."""
        return next((row for row in self.os if row.os.name == name), None)

    def flash_attn_version(self, wanted: Version) -> FlashAttnFact | None:
        """That release, exactly."""
        return next((row for row in self.flash_attn if row.version == wanted), None)


@cache
def load() -> Facts:
    """The facts in imagegen/data.

    Raises:
        FactsError: with every fault of every file.
    """
    tables: dict[str, Any] = {}
    folder = resources.files("imagegen") / "data"
    for name in ("torch", "cuda", "os", "flash_attn"):
        tables |= parse_toml((folder / f"{name}.toml").read_text(), f"{name}.toml")
    return checked(Facts, tables, "imagegen/data")


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
    """``; did you mean 'x'?`` where something known is close, or the known words."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


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
