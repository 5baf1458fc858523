"""Runs of a scenario: a push that meets a fault, a look, a push without one, and a look again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.faults.checker import Checker, Look
from tests.faults.scenarios import Run, Scenario
from tests.faults.world import Made, Push, World, log_of, world


@dataclass(kw_only=True)
class Row:
    """One line of the table."""

    fault: str
    what: str
    seed: int
    runs: int = 0
    hits: int = 0
    """Runs whose fault met a push under way."""
    survived: int = 0
    """Of these, pushes that got over it by themselves."""
    tags: int = 0
    """Tags that were looked at, in all looks together."""
    early: int = 0
    """Tags of these that never move and whose report was not there yet, after the fault."""
    mended: int = 0
    """Runs after which files that the registry itself had emptied were removed by hand."""
    violations: list[str] = field(default_factory=list)


def about(file: str) -> str:
    """The tag or digest whose bytes, or whose name in a repository, a file of the storage is."""
    found = re.search(r"/tags/([^/]+)/current/link$|/sha256/(?:../)?([0-9a-f]{64})/", file)
    assert found, file
    return found[1] or f"sha256:{found[2]}"


def play(scenario: Scenario, image: str, seed: int, runs: range, say: Callable[[str], None]) -> Row:
    """The runs of these numbers; each number's dice are its own, so that it can be repeated."""
    row, start = Row(fault=scenario.name, what=scenario.what, seed=seed), time.monotonic()
    with world(image, seed, disk=scenario.disk, own_engine=scenario.own_engine) as here:
        before: Mapping[str, str] = {}
        for number in runs:
            if not row.runs % scenario.together:
                name = f"faults/{scenario.name}-{number}"
                checker = Checker(here.real.host, name)
                before = _without_fault(here, checker, row) if scenario.together > 1 else {}
            here.seed(f"{scenario.name} {seed} {number}")
            found = len(row.violations)
            before = _run(scenario, here, checker, before, row)
            row.violations[found:] = [f"run {number}: {v}" for v in row.violations[found:]]
            so_far = f"{len(row.violations)} violations, {row.hits} hits"
            say(f"{time.monotonic() - start:4.0f} s {scenario.name} {number}: {so_far}")
            here.tidy()
    return row


def _run(
    scenario: Scenario, here: World, checker: Checker, before: Mapping[str, str], row: Row
) -> Mapping[str, str]:
    orders = here.pair()
    _known(checker, orders)
    run = Run(world=here, name=checker.name, orders=orders, checker=checker, before={**before})
    if not here.requests:
        here.requests = 60  # until a push without a fault was counted
    hit = scenario.fault(run)
    here.mend()
    emptied = here.real.emptied()
    for what in map(about, emptied):
        named = map(about, here.real.naming(what)) if ":" in what else ()
        checker.lost |= {what, *named} - checker.moving | {what}
    look = _looked(checker, run.before, row)
    row.early += len(look.early)
    row.runs += 1
    row.hits += hit
    row.survived += hit and run.code == 0
    if run.code and run.must_succeed:
        row.violations.append(f"the push did not get over it:\n{log_of(run.pushes[0])}")
    if emptied:
        here.real.remove(emptied)
        row.mended += 1
    checker.lost.clear()
    again = here.begin(checker.name, orders)
    wanted = _wanted(orders) | run.ends
    return _finished(again, checker, look.tags, wanted, row)


def _without_fault(here: World, checker: Checker, row: Row) -> Mapping[str, str]:
    """A first push to a repository, and how many requests that is."""
    orders = here.pair()
    _known(checker, orders)
    asked = len(here.proxy.asked)
    found = _finished(here.begin(checker.name, orders), checker, {}, _wanted(orders), row)
    here.requests = len(here.proxy.asked) - asked
    return found


def _finished(
    push: Push, checker: Checker, before: Mapping[str, str], wanted: Mapping[str, str], row: Row
) -> Mapping[str, str]:
    """What a push must have done once nothing is in its way."""
    if push.wait():
        row.violations.append(f"a push without a fault failed:\n{log_of(push)}")
    look = _looked(checker, before, row)
    row.violations += [f"{tag} has no report beside it" for tag in look.early]
    row.violations += [
        f"{tag}: the push that met no fault left it at {look.tags.get(tag)}, not at {digest}"
        for tag, digest in wanted.items()
        if look.tags.get(tag) != digest
    ]
    return look.tags


def _looked(checker: Checker, before: Mapping[str, str], row: Row) -> Look:
    look = checker.look(before)
    row.tags += look.count
    row.violations += look.violations
    return look


def _known(checker: Checker, orders: tuple[Made, ...]) -> None:
    """Tell the checker of images that are about to be pushed."""
    checker.made.update({one.digest: one.number for one in orders})
    checker.moving |= {tag for one in orders for tag in (one.target.tag, *one.aliases)}


def _wanted(orders: tuple[Made, ...]) -> dict[str, str]:
    """What each tag names in the end; of two images that want an alias the last is the newest."""
    return {tag: one.digest for one in orders for tag in (one.own, one.target.tag, *one.aliases)}
