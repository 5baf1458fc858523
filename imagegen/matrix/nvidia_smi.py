"""This machine's cards and driver, as nvidia-smi tells them."""

from __future__ import annotations

import csv
from datetime import date

from packaging.version import InvalidVersion, Version

from imagegen.compat.facts.rows import GpuFact
from imagegen.compat.facts.tables import Facts
from imagegen.errors import EngineError, UsageError
from imagegen.matrix.pick import Machine
from imagegen.util import process

QUERY = "name,driver_version,compute_cap,memory.total"


def read(facts: Facts) -> Machine:
    """Ask nvidia-smi. Its query output, not the banner, whose form changed with driver 610.

    Raises:
        UsageError: there is no nvidia-smi, no card, or an answer that cannot be read.
    """
    try:
        text = process.run(
            "nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits", timeout=30
        )
    except EngineError as error:
        raise UsageError(
            f"--from-nvidia-smi: {error}", hint="give the card and its driver: --gpu, --driver"
        ) from error
    return parse(text, facts)


def parse(text: str, facts: Facts) -> Machine:
    """The machine of a query's answer: a line for each card with name, driver, compute capability
    and memory in MiB. A card that no fact names is taken by its compute capability.

    Raises:
        UsageError: a line is something else.
    """
    cards: dict[str, GpuFact] = {}
    drivers: list[Version] = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if not row or not "".join(row).strip():
            continue
        if len(row) != len(QUERY.split(",")):
            raise UsageError(f"nvidia-smi said {', '.join(row).strip()!r}")
        try:
            name, driver, capability, memory = (word.strip() for word in row)
            drivers.append(Version(driver))
            cards[name] = facts.gpu_named(name) or _unnamed(name, capability, memory)
        except (ValueError, InvalidVersion) as error:
            raise UsageError(f"nvidia-smi said {', '.join(row)!r}: {error}") from error
    if not cards:
        raise UsageError("nvidia-smi names no card")
    unique = {card.name: card for card in cards.values()}
    return Machine(gpus=tuple(unique.values()), driver=min(drivers))


def _unnamed(name: str, capability: str, memory: str) -> GpuFact:
    major, _, minor = capability.partition(".")
    return GpuFact(
        name=name,
        capability=int(major) * 10 + int(minor),
        # "[N/A]" where a card shares the machine's memory.
        memory=(round(int(memory) / 1024),) if memory.isdecimal() else (),
        brand="geforce" if "geforce" in name.lower() else "tesla",
        source="nvidia-smi on this machine",
        checked=date.today(),
    )
