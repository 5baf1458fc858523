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


def render(
    select: Select = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 10 when a file differs.")
    ] = False,
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Write the Dockerfiles of the selected targets beside the matrix."""
    from imagegen import files, report

    found = files.render_files(setup(matrix, facts, allow_unknown), select or (), check=check)
    report.rendered(found, fmt.value, check=check)


def lock(
    select: Select = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Ask nothing, write nothing; exit 10 when a lock is stale."),
    ] = False,
    ca: Ca = "",
    pypi_index: PypiIndex = "",
    matrix: MatrixFile = MATRIX,
    facts: OwnFacts = None,
    allow_unknown: AllowUnknown = False,
    fmt: Fmt = Output.text,
) -> None:
    """Pin every Python package of the selected targets by hash. Asks the package index.

    Base images and flash-attn's source are pinned by the facts. What this network cannot reach
    stays visibly unlocked: see the column of `imagegen list`.
    """
    from imagegen import bake, files, report
    from imagegen.report import asking

    it = setup(matrix, facts, allow_unknown)
    if check:
        asking.locks(files.check_locks(it, select or ()), fmt.value)
        return
    network = bake.Network(ca=ca, pypi_index=pypi_index)
    made = files.lock_files(it, select or (), network, report.Progress())
    report.paths(made, fmt.value)


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
    from imagegen import delivery, flow, report

    options = settings(
        base, fresh_base, ca, pypi_index, torch_index, apt_mirror, registry, builder,
        keep_going=keep_going, repository=repository or (), compression=compression, force=force,
        wheels=wheels, no_source=no_source, jobs=jobs,
    )  # fmt: skip
    it, say = setup(matrix, facts, allow_unknown), report.Progress()
    if print_:
        chosen = flow.images(it, None, select or (), options, say)
        report.show(flow.document(it, chosen, options))
        return
    from imagegen.engine import Docker

    report.built(delivery.build(it, Docker.connect, select or (), options, say), fmt.value)


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
    from imagegen import checks, delivery, flow
    from imagegen.engine import Docker
    from imagegen.report import Progress, outcomes

    if list_:
        outcomes.catalogue(checks.listed(), {one.value for one in level or ()}, fmt.value)
        return
    files = outcomes.files(report_ or ())
    options = settings(
        base, fresh_base, ca, pypi_index, torch_index, apt_mirror, registry, builder,
        keep_going=keep_going, repository=repository or (), compression=compression, force=force,
        again=again, wheels=wheels, no_source=no_source, jobs=jobs, required=require or (),
        levels=level or ((Level.runpod, Level.vast) if image else ()),
    )  # fmt: skip
    of, say = (lambda: setup(matrix, facts, allow_unknown)), Progress()
    found = delivery.tested(of, Docker.connect, select or (), image or (), options, say)
    outcomes.show(found, fmt.value, files)
    flow.passed(found)


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
    from imagegen import delivery, report
    from imagegen.engine import Docker

    options = settings(
        base, fresh_base, ca, pypi_index, torch_index, apt_mirror, registry, builder,
        repository=repository or (), compression=compression, force=force, move_back=move_back,
        required=require or (), again=again, wheels=wheels, no_source=no_source, jobs=jobs,
    )  # fmt: skip
    it = setup(matrix, facts, allow_unknown)
    done = delivery.push(it, Docker.connect, select or (), options, report.Progress())
    report.published(done, fmt.value)
    delivery.delivered(done)
