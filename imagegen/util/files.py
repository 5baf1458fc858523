"""TODO."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path


def cache() -> Path:
    """Where bases and reports are kept between runs."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "imagegen"


def context_image() -> Path:
    """The folder of the ``image`` build context: what imagegen puts into every image."""
    return Path(str(resources.files("imagegen"))) / "image"
