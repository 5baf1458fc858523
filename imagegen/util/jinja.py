"""How the templates of text are filled in; each lies beside the module that fills it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


@cache
def environment(package: str, *, html: bool) -> jinja2.Environment:
    """The templates of a package. For HTML every value is escaped; Dockerfiles and Markdown take
    them as they are.
    """
    import jinja2  # a tenth of a second that only who renders needs to pay

    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=html,  # noqa: S701  (a Dockerfile is no HTML)
    )
