"""The command line, with the images given that a registry would be asked for; all else is as it is.
``python -m tests.unit.platforms.live.cli WORDS``; PUSHED_DIGEST gives the image another digest.
"""

from __future__ import annotations

import os
from typing import Any

from imagegen import __main__
from imagegen.commands import published as published_
from imagegen.model.pushed import Pushed
from tests.support.values import DEMO, DIGEST, RESOLUTION, pushed


def published(_it: object, select: Any, *_: object) -> tuple[Pushed, ...]:
    chosen = [one.id for one in RESOLUTION.select(select)] if select else [DEMO.id]
    digest = os.environ.get("PUSHED_DIGEST", DIGEST)
    return tuple(pushed(t, digest=digest) for t in RESOLUTION.targets if t.id in chosen)


if __name__ == "__main__":
    published_.published = published
    __main__.main()
