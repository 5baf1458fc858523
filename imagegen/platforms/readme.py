"""What people read of a template on its platform: made from what the image promises, and from
nothing that changes by itself.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from imagegen.compat.facts.rows import GpuFact
from imagegen.compat.facts.tables import Facts
from imagegen.model.pushed import Pushed
from imagegen.model.target import FlashAttn, FlashAttnPackage, Target, driver_text, minor
from imagegen.util.jinja import environment

if TYPE_CHECKING:
    import jinja2


@cache
def _template(platform: str) -> jinja2.Template:
    """The platform's own page, which fills the blocks of the common one."""
    return environment("imagegen.platforms", html=False).get_template(f"{platform}/readme.md.j2")


def text(platform: str, pushed: Pushed, facts: Facts) -> str:
    """The README for a platform, by its name.

    What stays and what costs when a pod stops: RunPod's docs, pods/manage-pods and storage types,
    as of 2026-08-20; vast.ai's, storage types and manage-instances, as of 2026-08-07.
    """
    target = pushed.target
    made = _template(platform).render(
        target=target,
        minor=minor,
        driver=driver_text(target.driver),
        cards=_joined(_cards(target, facts)),
        without=_joined(_without_attention(target, facts)),
        untrained=_joined(_untrained(target, facts)),
        flash_attn=target.flash_attn,
        kernels=isinstance(target.flash_attn, FlashAttn),
        capabilities=_capabilities,
        majors=_majors,
        pushed=pushed,
        megabytes=round(pushed.compressed / 10**6),
        packages=sorted(target.packages),
    )
    return made.strip()


def _cards(target: Target, facts: Facts) -> list[GpuFact]:
    """The cards of x86_64 machines that run the image's torch."""
    return [row for row in facts.gpu if row.host == "x86_64" and row.runs(target.archs)]


def _without_attention(target: Target, facts: Facts) -> list[GpuFact]:
    """Those of them that do not run the image's flash-attn."""
    held, cards = target.flash_attn, _cards(target, facts)
    if isinstance(held, FlashAttnPackage):
        return [row for row in cards if row.capability // 10 not in held.gpus]
    return [row for row in cards if held and not row.runs(held.archs)]


def _untrained(target: Target, facts: Facts) -> list[GpuFact]:
    """Those that run its forward pass alone."""
    held = target.flash_attn
    if not isinstance(held, FlashAttnPackage):
        return []
    forward = set(held.gpus) - set(held.trains_on)
    return [row for row in _cards(target, facts) if row.capability // 10 in forward]


def _joined(cards: list[GpuFact]) -> str:
    return ", ".join(sorted({row.name for row in cards}))


def _majors(majors: tuple[int, ...]) -> str:
    """``9.x, 10.x`` of (9, 10)."""
    return ", ".join(f"{major}.x" for major in sorted(majors))


def _capabilities(archs: tuple[int, ...]) -> str:
    """``8.0, 9.0`` of (80, 90)."""
    return ", ".join(f"{arch // 10}.{arch % 10}" for arch in archs)
