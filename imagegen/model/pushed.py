"""An image that is published. Frozen, without I/O."""

from __future__ import annotations

from dataclasses import dataclass

from imagegen.errors import ChecksFailed
from imagegen.model.image import Layer
from imagegen.model.report import Level, Report, ask_enough
from imagegen.model.target import Target


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """A tested image in a registry, as that registry tells of it.

    ``refs`` are the names it can be pulled by: the one that never means anything else, then the
    target's own; ``aliases`` other names that point to it. ``needed`` are the levels that a push
    asks for. ``moved`` are the tags that pointed elsewhere before, ``kept`` why a tag was left
    where it is. ``sent`` is false when the registry already had all of it; ``cached`` then says why
    nothing was done.
    """

    target: Target
    key: str
    repository: str
    digest: str
    refs: tuple[str, ...]
    layers: tuple[Layer, ...]
    report: Report
    needed: tuple[Level, ...]
    revision: str = ""
    aliases: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    sent: bool = False
    seconds: float = 0.0
    cached: str = ""

    def __post_init__(self) -> None:
        """Refuse what no passing report is beside.

        Raises:
            ChecksFailed: the report is not of these bytes, or did not pass.
            ValueError: ``needed`` is less than any push asks for.
        """
        ask_enough(self.needed)
        if not self.report.allows(self.digest, self.needed):
            raise ChecksFailed(
                f"{self.refs[0]} has no report that passed", hint=f"imagegen push {self.target.id}"
            )

    @property
    def unpacked(self) -> int:
        """Bytes of its file system, the sum over the layers."""
        return self.report.unpacked

    @property
    def compressed(self) -> int:
        """Bytes to pull on a host that has none of the layers."""
        return sum(layer.compressed for layer in self.layers)

    @property
    def pinned(self) -> str:
        """``repository:tag@sha256:…``: what a template should name."""
        return f"{self.refs[0]}@{self.digest}"
