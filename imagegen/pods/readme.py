"""What people read of a template on its platform: made from what the image promises, and from
nothing that changes by itself.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from imagegen.facts import Facts
from imagegen.model import FlashAttn, Pushed, Target, driver_text, minor

if TYPE_CHECKING:
    import jinja2


@cache
def _template() -> jinja2.Template:
    import jinja2  # a tenth of a second that only rendering needs to pay

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("imagegen"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown, which the platforms render
    )
    return environment.get_template("pod_readme.md.j2")


def text(platform: str, pushed: Pushed, facts: Facts) -> str:
    """The README for one of the platforms.

    What stays and what costs when a pod stops: RunPod's docs, pods/manage-pods and storage types,
    as of 2026-08-20; vast.ai's, storage types and manage-instances, as of 2026-08-07.
    """
    target = pushed.target
    made = _template().render(
        platform=platform,
        target=target,
        minor=minor,
        driver=driver_text(target.driver),
        cards=_cards(facts, target.archs, ()),
        slow=_without_attention(target, facts),
        flash_attn=target.flash_attn,
        kernels=isinstance(target.flash_attn, FlashAttn),
        capabilities=_capabilities,
        pushed=pushed,
        megabytes=round(pushed.compressed / 10**6),
        packages=sorted(target.packages),
    )
    return made.strip()


def _cards(facts: Facts, archs: tuple[int, ...], without: tuple[int, ...]) -> str:
    """The cards of x86_64 machines that run code for ``archs`` and none for ``without``."""
    rows = [row for row in facts.gpu if row.host == "x86_64" and row.runs(archs)]
    rows = [row for row in rows if not (without and row.runs(without))]
    return ", ".join(sorted({row.name for row in rows}))


def _without_attention(target: Target, facts: Facts) -> str:
    """The cards that run the image's torch, and not its flash-attn kernels."""
    if not isinstance(target.flash_attn, FlashAttn):
        return ""
    return _cards(facts, target.archs, target.flash_attn.archs)


def _capabilities(archs: tuple[int, ...]) -> str:
    """``8.0, 9.0`` of (80, 90)."""
    return ", ".join(f"{arch // 10}.{arch % 10}" for arch in archs)
