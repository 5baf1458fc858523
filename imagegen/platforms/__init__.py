"""TODO."""

from __future__ import annotations

from imagegen.compat.facts.tables import Facts
from imagegen.model.pushed import Pushed
from imagegen.platforms.runpod.template import LABELS, runpod
from imagegen.platforms.spec import Spec, Wish, _hash
from imagegen.platforms.vast.template import vast

PLATFORMS = ("runpod", "vast")


CALLED = {"runpod": "RunPod", "vast": "vast.ai"}
"""How the platforms write their names."""


def spec(platform: str, pushed: Pushed, facts: Facts, wish: Wish) -> Spec:
    """The whole template for one of ``PLATFORMS``."""
    from imagegen.platforms import readme

    text = readme.text(platform, pushed, facts)
    body = template(platform, pushed, facts, wish)
    if platform == "vast":
        body |= {"readme": text, "readme_visible": True}
        # vast.ai's own hash is known only after the POST: by this one a template whose answer was
        # lost is found again.
        body["desc"] = f"{body['desc']} ({_hash(body)[:12]})"
    return Spec(
        platform=platform,
        target=pushed.target.id,
        name=str(body["name"]),
        image=pushed.pinned,
        compressed=pushed.compressed,
        unpacked=pushed.unpacked,
        body=body,
        readme=text if platform == "runpod" else "",
        labels=LABELS if platform == "runpod" else (),
    )


def template(
    platform: str, pushed: Pushed, facts: Facts, wish: Wish | None = None
) -> dict[str, object]:
    """The body of one of ``PLATFORMS``, without the README."""
    wish = wish or Wish()
    return runpod(pushed, facts, wish) if platform == "runpod" else vast(pushed, wish)
