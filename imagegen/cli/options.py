"""The options of the command line, each written once: type, name, help, environment variable."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from imagegen.build.options import Options
    from imagegen.matrix.project import Project


class Output(StrEnum):
    """How results are printed."""

    text = "text"
    json = "json"


class ListOutput(StrEnum):
    """How targets are printed; ``github`` is a job matrix for GitHub Actions."""

    text = "text"
    json = "json"
    github = "github"


class TestOutput(StrEnum):
    """How the outcome of checks is printed; ``github`` is a job summary."""

    __test__ = False  # to pytest it looks like one

    text = "text"
    json = "json"
    junit = "junit"
    github = "github"


class Level(StrEnum):
    """What is checked."""

    smoke = "smoke"
    gpu = "gpu"
    runpod = "runpod"
    vast = "vast"


class Needed(StrEnum):
    """What no check may be skipped for want of."""

    gpu = "gpu"


class Compression(StrEnum):
    """How layers are compressed."""

    zstd = "zstd"
    gzip = "gzip"


class Base(StrEnum):
    """Where base images come from."""

    pull = "pull"
    bootstrap = "bootstrap"


Select = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SELECT]...", help="Globs over target ids; without any, every target."),
]
MatrixFile = Annotated[
    Path,
    typer.Option("--matrix", metavar="FILE", help="What to build.", envvar="IMAGEGEN_MATRIX"),
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
AllowUnknown = Annotated[
    bool,
    typer.Option(
        "--allow-unknown",
        help="Take what no fact confirms, and versions that nobody knows yet to be like the one "
        "before; marked as unverified, up to the image's label.",
        envvar="IMAGEGEN_ALLOW_UNKNOWN",
    ),
]
Card = Annotated[
    str, typer.Option("--gpu", metavar="NAME", help='The card, e.g. "RTX 4090", H100, "A100 SXM4".')
]
Driver = Annotated[
    str,
    typer.Option(
        "--driver",
        metavar="VERSION",
        help="NVIDIA's driver: 570.124.06, or a branch such as 570 for its newest.",
    ),
]
TestFmt = Annotated[TestOutput, typer.Option("--format", help="How to print the outcome.")]
Fmt = Annotated[Output, typer.Option("--format", help="How to print the result.")]
Builder = Annotated[
    str,
    typer.Option(metavar="NAME", help="A buildx builder instead of the engine's own BuildKit."),
]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="Build the rest when a target fails, then fail.")
]
BaseFrom = Annotated[
    Base,
    typer.Option(
        "--base",
        help="bootstrap makes the base from this machine's own packages, for a network without a "
        "registry; it works for slim images of CUDA 13 on this machine's distribution.",
        envvar="IMAGEGEN_BASE",
    ),
]
FreshBase = Annotated[
    bool, typer.Option("--fresh-base", help="Bootstrap the base anew, with today's packages.")
]
Ca = Annotated[
    str,
    typer.Option(
        "--ca",
        metavar="FILE",
        help="CA bundle to trust; a build gets it as a secret: it is in no layer.",
        envvar=["IMAGEGEN_CA", "SSL_CERT_FILE"],
    ),
]
PypiIndex = Annotated[
    str,
    typer.Option(metavar="URL", help="A PyPI index of your own.", envvar="IMAGEGEN_PYPI_INDEX"),
]
TorchIndex = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="A PyTorch index of your own; {backend} in it becomes cu128 and the like.",
        envvar="IMAGEGEN_TORCH_INDEX",
    ),
]
AptMirror = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="Root of a distribution mirror: takes the place of the archive's host.",
        envvar="IMAGEGEN_APT_MIRROR",
    ),
]
Registry = Annotated[
    str,
    typer.Option(
        metavar="HOST",
        help="A registry that mirrors docker.io, for base images.",
        envvar="IMAGEGEN_REGISTRY",
    ),
]
Levels = Annotated[
    list[Level] | None,
    typer.Option(
        "--level",
        help="smoke: nvcc, torch, flash-attn, packages. gpu: their kernels, on all GPUs of this "
        "machine. runpod, vast: the platforms' contracts, from outside. Repeatable; without it "
        "all that need no GPU.",
    ),
]
Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="REF",
        help="Check this image, whoever built it, instead of targets; --level runpod and vast "
        "unless told otherwise. Repeatable.",
    ),
]
ListChecks = Annotated[
    bool, typer.Option("--list", help="List the checks and what each guards against.")
]
Require = Annotated[
    list[Needed] | None,
    typer.Option("--require", help="gpu: run that level, and a check skipped for it has failed."),
]
Reports = Annotated[
    list[str] | None,
    typer.Option(
        "--report",
        metavar="FORMAT=FILE",
        help='Also write it so: junit=report.xml, json=report.json, github="$GITHUB_STEP_SUMMARY" '
        "(added at the end). Repeatable.",
    ),
]
Again = Annotated[bool, typer.Option("--again", help="Repeat checks that these bytes passed.")]
Repository = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Where images are published, e.g. ghcr.io/me/finetune; matrix.toml has the default. "
        "Repeatable; in the variable separated by spaces.",
        envvar="IMAGEGEN_REPOSITORY",
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Also make what the engine or the registry has already, and test it anew."
    ),
]
Packing = Annotated[
    Compression,
    typer.Option(
        help="How layers are compressed; gzip for hosts that cannot read zstd.",
        envvar="IMAGEGEN_COMPRESSION",
    ),
]
MoveBack = Annotated[
    bool,
    typer.Option(
        "--move-back",
        help="Let a tag go to an older version, or off an image that imagegen has not made.",
    ),
]
Wheels = Annotated[
    str,
    typer.Option(
        "--wheels",
        metavar="LOCATION",
        help="Your store of flash-attn wheels: ./FOLDER, https://host.example/folder, oci://host.example/name.",
        envvar="IMAGEGEN_WHEELS",
    ),
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
NoSource = Annotated[
    bool,
    typer.Option("--no-source", help="Fail at once where flash-attn would have to be compiled."),
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
# Of `wheel build --here`.
Here = Annotated[
    bool,
    typer.Option(
        "--here",
        help="Without Docker: with the torch, nvcc and compiler of this machine, for it alone.",
    ),
]
Where = Annotated[
    Path | None,
    typer.Option(
        "--to",
        metavar="FOLDER",
        help="Where files go: ./wheels with --here, ./shards with --shard.",
    ),
]
Given = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FOLDER",
        help="With --here: link what shards left there, and compile no kernel.",
    ),
]
Release = Annotated[
    str, typer.Option("--version", metavar="VERSION", help="With --here: of flash-attn.")
]
Sdist = Annotated[
    Path | None, typer.Option(metavar="FILE", help="With --here: flash-attn's source.")
]
Archs = Annotated[
    str, typer.Option(metavar="80,90", help="With --here; by default those of its GPUs.")
]
Preset = Annotated[
    str, typer.Option(metavar="NAME", help="With --here: full, llama, gpt2 or inference.")
]
HeadDims = Annotated[str, typer.Option(metavar="64,128", help="With --here.")]
Dtypes = Annotated[str, typer.Option(metavar="fp16,bf16", help="With --here.")]
Features = Annotated[
    str | None, typer.Option(metavar="dropout,…", help="With --here; '' for none.")
]
Work = Annotated[
    Path, typer.Option(metavar="FOLDER", help="With --here: where compiled kernels are kept.")
]
MATRIX = Path("dockerfiles/matrix.toml")


def setup(matrix: Path, facts: Path | None, allow_unknown: bool) -> Project:
    """What every command about targets starts from."""
    from imagegen.matrix import project

    return project.load(matrix, facts, allow_unknown=allow_unknown)


def settings(
    base: Base,
    fresh_base: bool,
    ca: str,
    pypi_index: str,
    torch_index: str,
    apt_mirror: str,
    registry: str,
    builder: str,
    *,
    keep_going: bool = False,
    repository: Sequence[str] = (),
    compression: Compression = Compression.zstd,
    levels: Sequence[Level] = (),
    required: Sequence[Needed] = (),
    again: bool = False,
    force: bool = False,
    move_back: bool = False,
    wheels: str = "",
    jobs: int = 0,
    no_source: bool = False,
) -> Options:
    """The options of a build as one value."""
    from imagegen.build import options
    from imagegen.model.report import CPU, Asked
    from imagegen.net.settings import Network

    return options.Options(
        network=Network(
            ca=ca,
            pypi_index=pypi_index,
            torch_index=torch_index,
            apt_mirror=apt_mirror,
            registry=registry,
        ),
        base=base.value,
        fresh_base=fresh_base,
        builder=builder,
        keep_going=keep_going,
        asked=Asked(
            levels=tuple(level.value for level in dict.fromkeys(levels)) or CPU,
            required=frozenset(need.value for need in required),
        ),
        again=again,
        force=force,
        move_back=move_back,
        repositories=tuple(dict.fromkeys(repository)),
        compression=compression.value,
        wheels=wheels,
        jobs=jobs or _others_jobs(),
        no_source=no_source,
    )


def _others_jobs() -> int:
    """What people set for every other build of an extension; some set it to a word."""
    others = os.environ.get("MAX_JOBS", "")
    return int(others) if others.isdecimal() else 0
