"""flash-attn wheels apart from images: what targets want, and making, checking and moving them."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from imagegen.build import bake
from imagegen.build import images as build_images
from imagegen.build.images import supply as opened
from imagegen.build.options import Options
from imagegen.compat import sources
from imagegen.compat.facts import files as facts
from imagegen.compat.sources import Pinned, Sourced
from imagegen.engine.docker import Docker
from imagegen.errors import BuildError, UsageError, WheelError
from imagegen.image.wheel.flash_attn_wheel.selection import Selection, shards, weight
from imagegen.matrix.project import Project
from imagegen.matrix.resolve import Candidate
from imagegen.model.image import Image
from imagegen.model.target import FlashAttn
from imagegen.net.http import Web
from imagegen.wheels import compile as compile_
from imagegen.wheels.compile import Compilation
from imagegen.wheels.download import STORE
from imagegen.wheels.entry import StoreEntry
from imagegen.wheels.store import Store, open_store
from imagegen.wheels.supply import expected
from imagegen.wheels.verify import described, verify

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetWheel:
    """A target's wheel: its name, what the store has of it, and where it would come from."""

    id: str
    name: str
    sourced: Sourced
    stored: StoreEntry | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltWheel:
    """A wheel that was built or found; ``found`` says why nothing was built."""

    id: str
    entry: StoreEntry
    seconds: float
    found: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A part of a target's kernels: ``name`` is 2/4, ``seconds`` of one core, estimated."""

    id: str
    name: str
    kernels: tuple[str, ...]
    seconds: float


def listed(project: Project, select: Sequence[str], options: Options) -> tuple[TargetWheel, ...]:
    """The wheel of every selected target that has flash-attn 2, and where it would come from."""
    supply = opened(project, options)
    found = []
    for candidate in chosen(project, select):
        stored, where = supply.looked(candidate)
        assert where  # it has flash-attn 2
        name = sources.own_name(candidate, kernels(candidate))
        found.append(TargetWheel(id=candidate.id, name=name, sourced=where, stored=stored))
    return tuple(found)


def chosen(project: Project, select: Sequence[str]) -> tuple[Candidate, ...]:
    """The selected targets with kernels of flash-attn 2.

    Raises:
        UsageError: none has any.
    """
    every = project.resolution.select(select)
    found = tuple(c for c in every if isinstance(c.target().flash_attn, FlashAttn))
    if not found:
        raise UsageError("no selected target has flash-attn 2, so there is no wheel")
    return found


def kernels(candidate: Candidate) -> Selection:
    """The kernels of a target that has some."""
    found = candidate.target().flash_attn
    assert isinstance(found, FlashAttn)
    return sources.selection(found)


def cut(project: Project, select: Sequence[str], count: int) -> tuple[Shard, ...]:
    """The kernel files of every selected target in ``count`` parts of about the same cost.

    Raises:
        UsageError: a target has fewer kernel files than that.
    """
    found = []
    for candidate in chosen(project, select):
        selection = kernels(candidate)
        try:
            parts = shards(selection, count)
        except ValueError as error:
            raise UsageError(f"{candidate.id}: {error}") from error
        found += [
            Shard(
                id=candidate.id,
                name=f"{number}/{count}",
                kernels=part,
                seconds=sum(weight(one, selection) for one in part) * len(selection.archs),
            )
            for number, part in enumerate(parts, start=1)
        ]
    return tuple(found)


def build(
    project: Project,
    engine: Docker,
    select: Sequence[str],
    options: Options,
    *,
    prebuilt: Path | None = None,
    force: bool = False,
) -> tuple[BuiltWheel, ...]:
    """Build the wheels of the selected targets in BuildKit and put them into the store.

    ``prebuilt`` holds what shards compiled: then nothing but these objects is linked.

    Raises:
        UsageError: no store is named, or ``prebuilt`` is empty. BuildError: one does not build.
    """
    if prebuilt and not any(prebuilt.glob("objects/*/*.o")):
        raise UsageError(f"{prebuilt} holds nothing that shards compiled: no objects/*/*.o")
    store = _needed(options, make=True)
    # what the store has is not to be used for making it
    candidates = _compiled(project, select)
    ids = [candidate.id for candidate in candidates]
    options = replace(options, wheels="")
    planned = build_images.plan(project, ids, options)
    images = build_images.on_bases(project, planned, options)
    names = {c.id: sources.own_name(c, kernels(c)) for c in candidates}
    built = []
    stored = {} if force else {name: store.find(name) for name in dict.fromkeys(names.values())}
    _announce([image for image in images if not stored.get(names[image.target.id])])
    for image in images:
        id_, name = image.target.id, names[image.target.id]
        if entry := stored.get(name):
            why = f"{store.location} has it already (--force builds it again)"
            built.append(BuiltWheel(id=id_, entry=entry, seconds=0.0, found=why))
            continue
        with tempfile.TemporaryDirectory(prefix="imagegen-wheel-") as folder:
            compiling = _compiling(image, Path(folder), options.jobs, prebuilt, force=force)
            seconds = build_images.bake_one(engine, image, options, compiling)
            (wheel,) = Path(folder).glob("*.whl")
            if wheel.name != name:
                raise BuildError(f"{id_}: the build made {wheel.name}, expected {name}")
            theirs = None if force else store.find(name)
            entry = theirs or store.put(wheel, replace=force)
        why = f"another build has put it into {store.location} meanwhile" if theirs else ""
        built.append(BuiltWheel(id=id_, entry=entry, seconds=seconds, found=why))
    return tuple(built)


def _compiling(
    image: Image, to: Path, jobs: int, prebuilt: Path | None, *, force: bool
) -> bake.Compiling:
    """How a whole wheel is compiled, or linked; says first what that costs."""
    cost = "linking what shards compiled" if prebuilt else expected(image.target, jobs)
    log.info(f"{image.target.id}: {cost}")
    return bake.Compiling(
        prebuilt={image.key: prebuilt.absolute()} if prebuilt else {},
        jobs=jobs,
        wheels=to,
        shard="join" if prebuilt else "",
        force=force,
    )


def _announce(images: Sequence[Image]) -> None:
    """What several compilations cost together, before the first one begins."""
    every = [i.target.flash_attn for i in images if isinstance(i.target.flash_attn, FlashAttn)]
    hours = sum(sources.cpu_hours(sources.selection(one)) for one in every)
    if len(images) > 1:
        log.info(
            f"{len(images)} wheels to build, at most {hours:.0f} CPU-hours: kernels that several "
            "share are compiled once"
        )


def build_shard(
    project: Project,
    engine: Docker,
    select: Sequence[str],
    options: Options,
    shard: str,
    to: Path,
) -> tuple[Path, ...]:
    """Compile one part of the kernels of one target, such as 2/4; its objects go below
    ``to``/objects.

    Raises:
        UsageError: several targets are selected, or the part is none of them.
    """
    (candidate, *more) = _compiled(project, select)
    if more:
        raise UsageError("a shard is of one target", hint=f"name it: {candidate.id}")
    part = compile_.part(shard)
    cut(project, [candidate.id], part.count)  # refuses more parts than kernel files
    options = replace(options, wheels="")
    planned = build_images.plan(project, [candidate.id], options)
    (image,) = build_images.on_bases(project, planned, options)
    to.mkdir(parents=True, exist_ok=True)
    log.info(f"{candidate.id}: {expected(image.target, options.jobs, part.count)}")
    compiling = bake.Compiling(jobs=options.jobs, wheels=to.absolute(), shard=str(part))
    build_images.bake_one(engine, image, options, compiling)
    return tuple(sorted(to.glob("objects/*/*.o")))


def _compiled(project: Project, select: Sequence[str]) -> tuple[Candidate, ...]:
    """The selected targets with kernels, whose Dockerfiles compile them.

    Raises:
        WheelError: one takes a published wheel instead, or nothing.
    """
    supply = opened(project, Options())
    for candidate in (found := chosen(project, select)):
        _, where = supply.looked(candidate)
        assert where  # it has flash-attn 2
        if where.taken != "source":
            tried = "\n".join(f"  {step}" for step in where.steps)
            raise WheelError(f"{candidate.id}: its Dockerfile does not compile flash-attn\n{tried}")
    return found


def compile_wheel(
    compilation: Compilation, own_facts: Path | None, options: Options
) -> Mapping[str, object]:
    """Compile a wheel on this machine, and put it into the store, too, if one is named.

    Raises:
        UsageError: it cannot be compiled here. BuildError: it failed.
    """
    found = compile_.compile_wheel(compilation, facts.load(own_facts), options.jobs)
    if options.wheels and "wheel" in found:
        push([compilation.folder / str(found["wheel"])], options, force=False)
    return found


def fetch(project: Project, select: Sequence[str], options: Options, to: Path) -> list[Path]:
    """Have the wheels of the selected targets from the store in a folder, by their hash.

    Raises:
        WheelError: the store lacks one of them.
    """
    store = _needed(options)
    found = []
    for candidate in chosen(project, select):
        name = sources.own_name(candidate, kernels(candidate))
        entry = store.find(name)
        if entry is None:
            raise WheelError(
                f"{store.location} has no {name}",
                hint=f"imagegen wheel build {candidate.id} --wheels {store.location}",
            )
        to.mkdir(parents=True, exist_ok=True)
        found.append(described(store.fetch(entry, to)))
    return found


def fetch_published(
    project: Project,
    select: Sequence[str],
    origin: str,
    options: Options,
    to: Path,
) -> list[Path]:
    """Fetch the published wheels that fit the selected targets and record their hashes.

    The first fetch is trusted: from then on the hash beside the locks decides.

    Raises:
        UsageError: there is no such origin. WheelError: a target has no such wheel, or a recorded
            hash differs.
    """
    if origin not in sources.PUBLISHED:
        raise UsageError(f"--from {origin}: {' or '.join(sources.PUBLISHED)}")
    found, pins = [], dict(project.pins)
    for candidate in chosen(project, select):
        name, url = sources.published(project.facts, candidate, origin)
        if not name:
            raise WheelError(f"{candidate.id}: no {origin} wheel fits it that the facts know")
        assert candidate.selection  # where its kernels come from
        if why := sources.unfit(candidate, kernels(candidate), origin, candidate.selection.policy):
            raise WheelError(f"{candidate.id}: no build would take it: {why}")
        wheel = _downloaded(url, to / name, pins.get(name), options.network.ca)
        verify(wheel, level="contents")
        pins[name] = Pinned(name=name, url=url, sha256=StoreEntry.of(wheel).sha256)
        found.append(wheel)
        project.record(pins.values())
    log.info(f"recorded in {project.locks / sources.PINS}; imagegen render writes it into targets")
    return found


def _downloaded(url: str, file: Path, recorded: Pinned | None, ca: str) -> Path:
    """A published file; ``recorded`` is what is known of it, if somebody fetched it before."""
    web, part = Web(url, STORE, ca=ca), file.with_name(f".{file.name}.part")
    file.parent.mkdir(parents=True, exist_ok=True)
    with web.ask("HEAD", url, ok=frozenset({200, 404})) as answer:
        if not answer.ok:
            raise WheelError(f"{url}: there is no such file")
        size = int(answer.headers.get("Content-Length", "0"))
    if not size:
        raise WheelError(f"{url}: the server does not say how long the file is")
    with part.open("wb+") as sink:  # from the start: nobody knows the hash of what another run left
        if not web.download(url, sink, size):
            raise WheelError(f"{url}: there is no such file")
    if recorded and hashlib.sha256(part.read_bytes()).hexdigest() != recorded.sha256:
        part.unlink()
        raise WheelError(
            f"{url} is another file than before: its sha256 is not the one in {sources.PINS}",
            hint="somebody replaced it there; remove its record only if you know why",
        )
    return part.replace(file)


def stored(options: Options) -> tuple[StoreEntry, ...]:
    """Everything that the store holds.

    Raises:
        WheelError: it cannot tell, as a web server.
    """
    return _needed(options).entries()


def push(wheels: Sequence[Path], options: Options, *, force: bool) -> tuple[StoreEntry, ...]:
    """Put wheels into the store, each looked through before: its hashes, its name, its metadata."""
    for wheel in wheels:
        verify(wheel, level="contents")
    store = _needed(options, make=True)
    return tuple(store.put(wheel, replace=force) for wheel in wheels)


def _needed(options: Options, *, make: bool = False) -> Store:
    if not options.wheels:
        raise UsageError(
            "no wheel store is named",
            hint="--wheels ./FOLDER, https://host.example/folder or oci://host.example/name",
        )
    return open_store(options.wheels, ca=options.network.ca, make=make)
