"""What the machine and its distribution allow."""

from __future__ import annotations

from imagegen.compat.facts.rows import GpuFact, OsFact
from imagegen.compat.rules.reason import Reason, Rule, impossible, warn
from imagegen.model.target import Host, Python


def the_gpu_has_the_host(gpu: GpuFact | None, host: Host) -> Reason | None:
    """Grace machines are ARM, all others that one can rent are x86_64."""
    if gpu is None or gpu.host == host:
        return None
    text = f"{gpu.name} is in {gpu.host} machines, not {host}"
    return impossible("gpu-host", "resolve", text, gpu)


def the_host_is_rendered(host: Host) -> Reason | None:
    """imagegen's Dockerfiles and locks are for x86_64."""
    if host == "x86_64":
        return None
    text = "the pieces exist for aarch64, but imagegen renders and locks x86_64 images only so far"
    return warn("host-not-rendered", "resolve", text, "imagegen")


def the_python_is_the_distributions(os: OsFact, python: Python) -> Reason | None:
    """The distribution's own Python has its updates and headers; any other is from elsewhere."""
    if os.python == python:
        return None
    text = (
        f"{os.os.name} ships Python {os.python}; {python} has to come from elsewhere, and "
        "imagegen's images take the distribution's own"
    )
    return warn("python-distribution", "resolve", text, os)


RULES: tuple[Rule, ...] = (
    the_gpu_has_the_host,
    the_host_is_rendered,
    the_python_is_the_distributions,
)
