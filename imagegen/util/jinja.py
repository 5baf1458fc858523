"""How the files in templates/ are filled in."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


@cache
def environment(*, html: bool) -> jinja2.Environment:
    """For HTML every value is escaped; Dockerfiles and Markdown take them as they are."""
    import jinja2  # a tenth of a second that only who renders needs to pay

    return jinja2.Environment(
        loader=jinja2.PackageLoader("imagegen"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=html,  # noqa: S701 - Dockerfiles and Markdown are no HTML
    )
