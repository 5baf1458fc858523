"""The options of the command line, each written once: type, name, help, environment variable.

Options that belong together are the fields of a frozen dataclass, a group. A command takes groups
as values, and ``grouped`` makes its options of their fields. What single commands share, and no
group, is an alias.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from imagegen.build.options import BaseFrom, Options
from imagegen.model.image import Compression
from imagegen.model.report import Asked
from imagegen.net.settings import Network
from imagegen.output.console import Format
from imagegen.platforms import PLATFORMS

if TYPE_CHECKING:
    from imagegen.matrix.project import Project

MATRIX = Path("dockerfiles/matrix.toml")


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer is to see it: with the fields of its groups in the place of each."""
    hints = get_type_hints(command, include_extras=True)
    groups = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }
    options: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        if group := groups.get(name):
            own = get_type_hints(group, include_extras=True)
            options += (
                field.replace(annotation=own[field.name])
                for field in signature(group).parameters.values()
            )
        else:
            options.append(parameter.replace(annotation=hints[name]))

    @wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    run.__signature__ = Signature(options)  # type: ignore[attr-defined]
    return run


# --- of single commands ---------------------------------------------------------------------------


class Level(StrEnum):
    """What is checked. Typer takes no list of a Literal."""

    _ignore_ = "name"
    smoke = "smoke"
    gpu = "gpu"
    for name in PLATFORMS:
        vars()[name] = name


class Needed(StrEnum):
    """What no check may be skipped for want of."""

    gpu = "gpu"


Select = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SELECT]...", help="Globs over target ids; without any, every target."),
]
Fmt = Annotated[Format, typer.Option("--format", help="How to print the result.")]
ListFmt = Annotated[
    Literal["text", "json", "github"], typer.Option("--format", help="How to print.")
]
TestFmt = Annotated[
    Literal["text", "json", "junit", "github"],
    typer.Option("--format", help="How to print the outcome."),
]
OwnFacts = Annotated[
    Path | None,
    typer.Option(
        "--facts",
        metavar="FILE",
        help="Facts of your own (TOML, tables as in imagegen/data): rows that add or override.",
        envvar="IMAGEGEN_FACTS",
    ),
]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="Build the rest when a target fails, then fail.")
]
FreshBase = Annotated[
    bool,
    typer.Option("--fresh-base", help="Bootstrap the base from scratch, with today's packages."),
]
Builder = Annotated[
    str,
    typer.Option(metavar="NAME", help="A buildx builder instead of the engine's own BuildKit."),
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        metavar="N",
        min=0,
        help="Threads of nvcc at once, about 5 GB each; 0: as many as cores and memory allow.",
        envvar="IMAGEGEN_JOBS",
    ),
]
Repositories = Annotated[
    list[str] | None,
    typer.Option(
        "--repository",
        metavar="NAME",
        help="Where images are published, e.g. ghcr.io/me/finetune; matrix.toml has the default. "
        "Repeatable; in the variable separated by spaces.",
        envvar="IMAGEGEN_REPOSITORY",
    ),
]
LedgerFile = Annotated[
    Path | None,
    typer.Option(
        "--ledger",
        metavar="FILE",
        help="The ledger of templates, what was made where; templates.json beside the matrix, if "
        "not given.",
        envvar="IMAGEGEN_LEDGER",
    ),
]


# --- the project ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MatrixOptions:
    """Which matrix."""

    matrix: Annotated[
        Path,
        typer.Option("--matrix", metavar="FILE", help="What to build.", envvar="IMAGEGEN_MATRIX"),
    ] = MATRIX


@dataclass(frozen=True, kw_only=True)
class FactsOptions:
    """Whose facts, and what is taken without any."""

    facts: OwnFacts = None
    allow_unknown: Annotated[
        bool,
        typer.Option(
            "--allow-unknown",
            help="Take what no fact confirms, and versions that nobody knows yet to be like the "
            "one before; marked as unverified, up to the image's label.",
            envvar="IMAGEGEN_ALLOW_UNKNOWN",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ProjectOptions(FactsOptions, MatrixOptions):
    """What every command about targets starts from."""

    def load(self) -> Project:
        """The project, read and resolved."""
        from imagegen.matrix import project

        return project.load(self.matrix, self.facts, allow_unknown=self.allow_unknown)


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """The machine that something is to run on."""

    gpu: Annotated[
        str,
        typer.Option("--gpu", metavar="NAME", help='The card, e.g. "RTX 4090", H100, "A100 SXM4".'),
    ] = ""
    driver: Annotated[
        str,
        typer.Option(
            "--driver",
            metavar="VERSION",
            help="NVIDIA's driver: 570.124.06, or a branch such as 570 for its newest.",
        ),
    ] = ""


# --- the network: each group for commands that ask more of it -------------------------------------


@dataclass(frozen=True, kw_only=True)
class CaOptions:
    """Whom to trust."""

    ca: Annotated[
        str,
        typer.Option(
            "--ca",
            metavar="FILE",
            help="CA bundle to trust; a build gets it as a secret: it is in no layer.",
            envvar=["IMAGEGEN_CA", "SSL_CERT_FILE"],
        ),
    ] = ""

    def settings(self) -> Network:
        """The network's settings; what a group has no option for is empty."""
        return Network(**asdict(self))


@dataclass(frozen=True, kw_only=True)
class IndexOptions(CaOptions):
    """Also where Python packages come from."""

    pypi_index: Annotated[
        str,
        typer.Option(metavar="URL", help="A PyPI index of your own.", envvar="IMAGEGEN_PYPI_INDEX"),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class MirrorOptions(IndexOptions):
    """Also where packages of the distribution and base images come from."""

    apt_mirror: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Root of a distribution mirror: takes the place of the archive's host.",
            envvar="IMAGEGEN_APT_MIRROR",
        ),
    ] = ""
    registry: Annotated[
        str,
        typer.Option(
            metavar="HOST",
            help="A registry that mirrors docker.io, for base images.",
            envvar="IMAGEGEN_REGISTRY",
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(MirrorOptions):
    """Also where torch comes from: all that a build asks for."""

    torch_index: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="A PyTorch index of your own; {backend} in it becomes cu128 and the like.",
            envvar="IMAGEGEN_TORCH_INDEX",
        ),
    ] = ""


# --- images: each group for commands that have more to do with them -------------------------------


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """Which store of wheels."""

    wheels: Annotated[
        str,
        typer.Option(
            "--wheels",
            metavar="LOCATION",
            help="Your store of flash-attn wheels: ./FOLDER, https://host.example/folder, "
            "oci://host.example/name.",
            envvar="IMAGEGEN_WHEELS",
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class SourceOptions(StoreOptions):
    """Where the base and flash-attn come from."""

    base: Annotated[
        BaseFrom,
        typer.Option(
            "--base",
            help="bootstrap makes the base from this machine's own packages, for a network "
            "without a registry; it works for slim images of CUDA 13 on this machine's "
            "distribution.",
            envvar="IMAGEGEN_BASE",
        ),
    ] = "pull"


@dataclass(frozen=True, kw_only=True)
class ImageOptions(SourceOptions):
    """What tells one image of a target from another."""

    compression: Annotated[
        Compression,
        typer.Option(
            help="How layers are compressed; gzip for hosts that cannot read zstd.",
            envvar="IMAGEGEN_COMPRESSION",
        ),
    ] = "zstd"


@dataclass(frozen=True, kw_only=True)
class PublishedOptions(ImageOptions):
    """An image of a target, and where it is published."""

    repositories: Repositories = None


@dataclass(frozen=True, kw_only=True)
class BuildOptions(PublishedOptions):
    """How images are made."""

    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also make what the engine or the registry has already, and test it again.",
        ),
    ] = False
    builder: Builder = ""
    fresh_base: FreshBase = False
    no_source: Annotated[
        bool,
        typer.Option(
            "--no-source", help="Fail at once where flash-attn would have to be compiled."
        ),
    ] = False
    jobs: Jobs = 0


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """How images are tried before anybody gets them."""

    require: Annotated[
        list[Needed] | None,
        typer.Option(
            "--require", help="gpu: run that level, and a check skipped for it has failed."
        ),
    ] = None
    again: Annotated[
        bool, typer.Option("--again", help="Repeat checks that these bytes passed.")
    ] = False

    def asked(self, levels: Sequence[Level] = ()) -> Asked:
        """The levels to run."""
        return Asked(
            levels=tuple(level.value for level in dict.fromkeys(levels)),
            required=frozenset(need.value for need in self.require or ()),
        )


def build_options(*groups: Any, network: CaOptions | None = None, **more: Any) -> Options:
    """The options of a build, where every field of a group has its name; ``more`` are further ones.

    What was not given is as it is there, and so is what a command has no option for.
    """
    found = {field.name: getattr(group, field.name) for group in groups for field in fields(group)}
    typed: dict[str, Any] = {
        name: tuple(dict.fromkeys(value)) if isinstance(value, list) else value
        for name, value in (found | more).items()
        if value is not None
    }
    typed["jobs"] = typed.get("jobs") or _others_jobs()
    return Options(network=network.settings() if network else Network(), **typed)


def _others_jobs() -> int:
    """What people set for every other build of an extension; some set it to a word."""
    others = os.environ.get("MAX_JOBS", "")
    return int(others) if others.isdecimal() else 0
