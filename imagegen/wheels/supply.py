"""flash-attn for the targets of a build: asked of every place in its order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imagegen.compat import sources
from imagegen.compat.sources import Pinned, Sourced
from imagegen.errors import WheelError
from imagegen.image.wheel.flash_attn_wheel.selection import Selection, foretold
from imagegen.image.wheel.flash_attn_wheel.sizing import cores, memory, slots
from imagegen.matrix.resolve import Candidate
from imagegen.model.target import FlashAttn, FlashAttnPackage, Target
from imagegen.wheels.entry import Entry
from imagegen.wheels.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Supply:
    """Where wheels come from; ``folder`` keeps those of the store, each in a folder by its hash."""

    folder: Path
    pins: Mapping[str, Pinned]
    store: Store | None
    no_source: bool

    def of(self, candidate: Candidate) -> tuple[Entry | None, Sourced | None]:
        """The wheel in the store, and every place; of a target with flash-attn 2.

        Raises:
            WheelError: the store does not answer, or nothing is left.
        """
        held, where = self.looked(candidate)
        if where and where.taken is None:
            tried = "\n".join(f"  {step}" for step in where.steps)
            raise WheelError(
                f"{candidate.id}: flash-attn is not available\n{tried}", hint=_hint(candidate)
            )
        return held, where

    def looked(self, candidate: Candidate) -> tuple[Entry | None, Sourced | None]:
        """The same, also where nothing is left.

        Raises:
            WheelError: the store does not answer.
        """
        flash_attn = candidate.target().flash_attn
        if not isinstance(flash_attn, FlashAttn):
            return None, None
        kernels = sources.selection(flash_attn)
        assert candidate.selection  # where its kernels come from
        policy, held = candidate.selection.policy, None
        asked = self.store if policy.source != "required" else None
        if asked:
            held = asked.find(sources.own_name(candidate, kernels))
        where = sources.sourced(
            candidate,
            kernels,
            policy,
            self.pins,
            asked.location if asked else "",
            stored=bool(held) if asked else None,
            no_source=self.no_source,
        )
        return held, where

    def fetch(self, held: Entry) -> None:
        """Have a wheel of the store in its folder, with nothing else in it."""
        assert self.store
        folder = self.folder / held.sha256
        folder.mkdir(parents=True, exist_ok=True)
        self.store.fetch(held, folder)


def _hint(candidate: Candidate) -> str:
    if candidate.selection and candidate.selection.source == "forbidden":
        return "--wheels LOCATION, with a store that has it"
    return f"imagegen wheel build {candidate.id} --wheels LOCATION puts one into a store"


def expected(target: Target, jobs: int = 0, shards: int = 1) -> str:
    """What compiling flash-attn for the target costs where no cache has anything of it."""
    kernels = target.flash_attn
    if kernels is None:
        return "nothing to compile: it has no flash-attn"
    if isinstance(kernels, FlashAttnPackage):
        return f"nothing to compile: {kernels.package} {kernels.version} is installed as a wheel"
    text = cost(sources.selection(kernels), jobs, shards)
    return f"flash-attn {kernels.version} from source, {text}, unless the build cache has them"


def cost(selection: Selection, jobs: int, shards: int = 1) -> str:
    """CPU-hours and time that compiling takes on this machine; ``jobs`` is 0 for what fits it."""
    at_once = jobs or slots(cores(), memory())
    hours, seconds = foretold(selection, at_once, shards)
    archs = f"{len(selection.archs)} architecture{'s' * (len(selection.archs) > 1)}"
    files = f"{len(selection.kernels) // shards} kernel files"
    return (
        f"{files} for {archs}: about {hours:.1f} CPU-hours, {seconds / 60:.0f} min with {at_once} "
        f"thread{'s' * (at_once > 1)} of nvcc here"
    )
