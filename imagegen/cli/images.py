"""Commands that make: files, locks, images, and what is in a registry."""

from __future__ import annotations

from typing import Annotated

import typer

from imagegen.cli.options import (
    MATRIX,
    Again,
    AllowUnknown,
    AptMirror,
    Base,
    BaseFrom,
    Builder,
    Ca,
    Compression,
    Fmt,
    Force,
    FreshBase,
    Images,
    Jobs,
    KeepGoing,
    Level,
    Levels,
    ListChecks,
    MatrixFile,
    MoveBack,
    NoSource,
    Output,
    OwnFacts,
    Packing,
    PypiIndex,
    Registry,
    Reports,
    Repository,
    Require,
    Select,
    TestFmt,
    TestOutput,
    TorchIndex,
    Wheels,
    settings,
    setup,
)


def build(
    select: Select = None,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the bake definition and build nothing.")
    ] = False,
    force: Force = False,
    builder: Builder = "",
    keep_going: KeepGoing = False,
    base: BaseFrom = Base.pull,
    fresh_base: FreshBase = False,
    ca: Ca = "",
    pypi_index: PypiIndex = "",
    torch_index: TorchIndex = "",
    apt_mirror: AptMirror = "",
    registry: Registry = "",
    repository: Repository = None,
    compression: Packing = Compression.zstd,
    wheels: Wheels = "",
    no_source: NoSource = False,
    jobs: Jobs = 0,
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Build the selected targets into the engine's store.

    imagegen build 'ubuntu24.04-cuda13.0-*-slim' --keep-going
    """
    from imagegen.commands import build as build_
    from imagegen.output import console
    from imagegen.output.images import built

    options = settings(
        base, fresh_base, ca, pypi_index, torch_index, apt_mirror, registry, builder,
        keep_going=keep_going, repository=repository or (), compression=compression, force=force,
        wheels=wheels, no_source=no_source, jobs=jobs,
    )  # fmt: skip
    it = setup(matrix, facts, allow_unknown)
    if print_:
        console.show(build_.definition(it, select or (), options))
        return
    from imagegen.engine.docker import Docker

    built(build_.build(it, Docker.connect, select or (), options), fmt.value)


def test(
    select: Select = None,
    image: Images = None,
    level: Levels = None,
    require: Require = None,
    list_: ListChecks = False,
    again: Again = False,
    report_: Reports = None,
    force: Force = False,
    builder: Builder = "",
    keep_going: KeepGoing = False,
    base: BaseFrom = Base.pull,
    fresh_base: FreshBase = False,
    ca: Ca = "",
    pypi_index: PypiIndex = "",
    torch_index: TorchIndex = "",
    apt_mirror: AptMirror = "",
    registry: Registry = "",
    repository: Repository = None,
    compression: Packing = Compression.zstd,
    wheels: Wheels = "",
    no_source: NoSource = False,
    jobs: Jobs = 0,
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: TestFmt = TestOutput.text,
) -> None:
    """Build the selected targets and try them: what is inside, and as a pod's user from outside.

    imagegen test --image runpod/pytorch:1.0.3-cu1281-torch291-ubuntu2404 --level runpod
    """
    from imagegen.commands.test import listed, passed, tested
    from imagegen.engine.docker import Docker
    from imagegen.output import checks

    if list_:
        checks.catalogue(listed(), {one.value for one in level or ()}, fmt.value)
        return
    files = checks.files(report_ or ())
    options = settings(
        base, fresh_base, ca, pypi_index, torch_index, apt_mirror, registry, builder,
        keep_going=keep_going, repository=repository or (), compression=compression, force=force,
        again=again, wheels=wheels, no_source=no_source, jobs=jobs, required=require or (),
        levels=level or ((Level.runpod, Level.vast) if image else ()),
    )  # fmt: skip
    of = lambda: setup(matrix, facts, allow_unknown)
    found = tested(of, Docker.connect, select or (), image or (), options)
    checks.show(found, fmt.value, files)
    passed(found)


def push(
    select: Select = None,
    require: Require = None,
    again: Again = False,
    force: Force = False,
    move_back: MoveBack = False,
    builder: Builder = "",
    base: BaseFrom = Base.pull,
    fresh_base: FreshBase = False,
    ca: Ca = "",
    pypi_index: PypiIndex = "",
    torch_index: TorchIndex = "",
    apt_mirror: AptMirror = "",
    registry: Registry = "",
    repository: Repository = None,
    compression: Packing = Compression.zstd,
    wheels: Wheels = "",
    no_source: NoSource = False,
    jobs: Jobs = 0,
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Build, test and publish the selected targets. Nothing untested can be pushed.

    imagegen push 'ubuntu24.04-*-slim' --repository ghcr.io/me/finetune

    A target that is published already, with the same files, locks and base and a report that
    passed, is left alone. One that fails keeps no other from being published. Logins are those of
    docker login.
    """
    from imagegen.commands import push as push_
    from imagegen.engine.docker import Docker
    from imagegen.output.images import published

    options = settings(
        base, fresh_base, ca, pypi_index, torch_index, apt_mirror, registry, builder,
        repository=repository or (), compression=compression, force=force, move_back=move_back,
        required=require or (), again=again, wheels=wheels, no_source=no_source, jobs=jobs,
    )  # fmt: skip
    it = setup(matrix, facts, allow_unknown)
    done = push_.push(it, Docker.connect, select or (), options)
    published(done, fmt.value)
    push_.delivered(done)
