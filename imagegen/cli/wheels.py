"""Commands about flash-attn wheels apart from images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from imagegen.cli.options import (
    Builder,
    CaOptions,
    Fmt,
    Jobs,
    ListFmt,
    NetworkOptions,
    OwnFacts,
    ProjectOptions,
    Select,
    SourceOptions,
    StoreOptions,
    build_options,
    grouped,
)
from imagegen.wheels.verify import Depth

wheel = typer.Typer(
    no_args_is_help=True,
    help="flash-attn wheels: build once, keep in a store, and let images take them from there.",
)
Shard = Annotated[
    str,
    typer.Option(metavar="K/N", help="Compile the K-th of N parts only, and keep its objects."),
]
Files = Annotated[list[Path], typer.Argument(metavar="WHEEL...", help="Wheel files.")]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Also what the store has: compile all of it again and replace it."
    ),
]
Interpreter = Annotated[
    str, typer.Option("--python", metavar="PATH", help="The interpreter that has torch.")
]


@dataclass(frozen=True, kw_only=True)
class StageOptions(SourceOptions):
    """How the stage of an image that holds its wheel is built."""

    builder: Builder = ""


@dataclass(frozen=True, kw_only=True)
class WheelKernels:
    """Which kernels a wheel holds, as it is typed."""

    version: Annotated[
        str,
        typer.Option("--version", metavar="VERSION", help="Of flash-attn; by default the newest."),
    ] = ""
    archs: Annotated[
        str, typer.Option(metavar="80,90", help="By default those of this machine's GPUs.")
    ] = ""
    preset: Annotated[str, typer.Option(metavar="NAME", help="full, llama, gpt2 or inference.")] = (
        "full"
    )
    head_dims: Annotated[str, typer.Option(metavar="64,128", help="Instead of the preset's.")] = ""
    dtypes: Annotated[str, typer.Option(metavar="fp16,bf16", help="Instead of the preset's.")] = ""
    features: Annotated[
        str | None,
        typer.Option(metavar="dropout,…", help="Instead of the preset's; '' for none."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """From what a wheel is compiled on this machine, by what, and where to."""

    shard: Shard = ""
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="FOLDER", help="Where files go: ./wheels, or ./shards with --shard."
        ),
    ] = None
    prebuilt: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="Link what shards left there, and compile no kernel.",
        ),
    ] = None
    sdist: Annotated[Path | None, typer.Option(metavar="FILE", help="flash-attn's source.")] = None
    python: Interpreter = "python3"
    work: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where compiled kernels are kept.")
    ] = Path("build")


@wheel.command("list")
@grouped
def list_(
    *,
    select: Select = None,
    held: Annotated[
        bool, typer.Option("--held", help="What the store holds, whatever the targets want.")
    ] = False,
    store: StoreOptions,
    network: CaOptions,
    project: ProjectOptions,
    fmt: Fmt = "text",
) -> None:
    """Name the wheel of each target, and every place that it could come from.

    imagegen wheel list 'debian12-*' --wheels ./wheels
    """
    from imagegen.commands import wheels
    from imagegen.output import wheels as output

    options = build_options(store, network=network)
    if held:
        output.stored(wheels.stored(options), fmt)
    else:
        output.listed(wheels.listed(project.load(), select or (), options), fmt)


@wheel.command("plan")
@grouped
def plan(
    *,
    select: Select = None,
    shards: Annotated[int, typer.Option("--shards", min=1, help="How many parts.")] = 4,
    project: ProjectOptions,
    fmt: ListFmt = "text",
) -> None:
    """Cut the kernel files of each target into parts of about the same cost, one for a CI job.

    Build each with `wheel build TARGET --shard K/N --to FOLDER`, bring the folders together, and
    link them with `wheel join`. --format github is a matrix for a workflow.
    """
    from imagegen.commands.wheels import cut
    from imagegen.output import wheels as output

    output.shards(cut(project.load(), select or (), shards), fmt)


@wheel.command("build")
@grouped
def build(
    *,
    select: Select = None,
    shard: Shard = "",
    to: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", help="With --shard: where its objects go.")
    ] = Path("shards"),
    force: Force = False,
    stage: StageOptions,
    jobs: Jobs = 0,
    network: NetworkOptions,
    project: ProjectOptions,
    fmt: Fmt = "text",
) -> None:
    """Build the wheels of the selected targets into the store, compiling each kernel once.

    imagegen wheel build 'ubuntu24.04-*' --wheels ./wheels
    """
    from imagegen.commands import wheels
    from imagegen.engine.docker import Docker
    from imagegen.output import wheels as output

    options = build_options(stage, network=network, jobs=jobs)
    loaded, engine = project.load(), Docker.connect()
    if shard:
        found = wheels.build_shard(loaded, engine, select or (), options, shard, to)
        output.files(found, fmt)
    else:
        output.built(wheels.build(loaded, engine, select or (), options, force=force), fmt)


@wheel.command("compile")
@grouped
def compile_(
    *,
    kernels: WheelKernels,
    how: CompileOptions,
    jobs: Jobs = 0,
    wheels: Annotated[
        str,
        typer.Option(
            "--wheels", metavar="LOCATION", help="A store that the wheel is to be put into, too."
        ),
    ] = "",
    network: CaOptions,
    facts: OwnFacts = None,
    fmt: Fmt = "text",
) -> None:
    """Compile a wheel without Docker: with the torch, nvcc and compiler of this machine, for it.

    imagegen wheel compile --preset llama --to ./wheels
    """
    from imagegen.commands.wheels import compile_wheel
    from imagegen.output import wheels as output
    from imagegen.wheels.compile import Compilation, Wanted

    options = build_options(network=network, wheels=wheels, jobs=jobs)
    compilation = Compilation(wanted=Wanted(**asdict(kernels)), **asdict(how))
    output.compiled(compile_wheel(compilation, facts, options), compilation.folder, fmt)


@wheel.command("join")
@grouped
def join(
    *,
    select: Select = None,
    prebuilt: Annotated[
        Path,
        typer.Option("--from", metavar="FOLDER", help="What the shards left, brought together."),
    ] = Path("shards"),
    force: Force = False,
    stage: StageOptions,
    network: NetworkOptions,
    project: ProjectOptions,
    fmt: Fmt = "text",
) -> None:
    """Link what the shards of a target compiled into its wheel; a missing kernel is an error.

    imagegen wheel join TARGET --from ./shards --wheels ./wheels
    """
    from imagegen.commands import wheels
    from imagegen.engine.docker import Docker
    from imagegen.output import wheels as output

    options = build_options(stage, network=network)
    loaded, engine = project.load(), Docker.connect()
    found = wheels.build(loaded, engine, select or (), options, prebuilt=prebuilt, force=force)
    output.built(found, fmt)


@wheel.command("fetch")
@grouped
def fetch(
    *,
    select: Select = None,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the files go.")] = Path(
        "wheels"
    ),
    published: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="ORIGIN",
            help="official or third-party: fetch the published wheel instead, and record its hash "
            "beside the locks, so that builds may take it.",
        ),
    ] = "",
    store: StoreOptions,
    network: CaOptions,
    project: ProjectOptions,
    fmt: Fmt = "text",
) -> None:
    """Have the wheels of the selected targets in a folder, checked by hash.

    imagegen wheel fetch 'debian12-*' --wheels oci://ghcr.io/me/wheels --to ./wheels
    """
    from imagegen.commands import wheels
    from imagegen.output import wheels as output

    loaded, options = project.load(), build_options(store, network=network)
    if published:
        found = wheels.fetch_published(loaded, select or (), published, options, to)
    else:
        found = wheels.fetch(loaded, select or (), options, to)
    output.files(found, fmt)


@wheel.command("push")
@grouped
def push(
    *,
    files: Files,
    store: StoreOptions,
    force: Force = False,
    network: CaOptions,
    fmt: Fmt = "text",
) -> None:
    """Put wheels into a store, each looked through first: its hashes, its name, its metadata.

    What its kernels are, `wheel verify` says.

    imagegen wheel push ./wheels/*.whl --wheels oci://ghcr.io/me/wheels
    """
    from imagegen.commands import wheels
    from imagegen.output import wheels as output

    options = build_options(store, network=network)
    output.stored(wheels.push(files, options, force=force), fmt)


@wheel.command("verify")
@grouped
def verify(
    *,
    files: Files,
    python: Interpreter = "python3",
    level: Annotated[
        Depth,
        typer.Option("--level", help="contents: the file; kernels: by cuobjdump; load: by torch."),
    ] = "load",
    image: Annotated[
        str, typer.Option(metavar="IMAGE", help="In a container of this image, by its Python.")
    ] = "",
    sha256: Annotated[
        str, typer.Option("--sha256", metavar="HASH", help="The hash that the file must have.")
    ] = "",
    fmt: Fmt = "text",
) -> None:
    """Check that wheels are what their names promise; needs no GPU.

    Their hash, against --sha256 or the description that a store keeps beside them; the hashes of
    the files in them, tags and metadata; every promised kernel and feature for every promised
    architecture, and no other; torch minor, CUDA and C++ ABI, and that they load.

    imagegen wheel verify ./wheels/*.whl --image imagegen/built:TAG
    """
    from imagegen.output import wheels as output
    from imagegen.wheels.verify import no_faults, verify_all

    found, faults = verify_all(files, python=python, level=level, image=image, sha256=sha256)
    output.verified(found, faults, fmt)
    no_faults(faults)
