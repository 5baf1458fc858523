"""Pushes that meet a fault: one run of each of `tests.faults`, which makes many."""

from __future__ import annotations

import pytest

from imagegen.build.base import Base
from imagegen.engine.docker import Docker
from imagegen.publish.local_registry import server
from tests.engine.conftest import NETWORK
from tests.faults.runs import play
from tests.faults.scenarios import EVERY, Scenario

SEED = 6


@pytest.mark.parametrize("scenario", EVERY, ids=lambda one: one.name)
def test_no_fault_leaves_a_tag_at_something_missing_untested_or_older(
    engine: Docker, local_base: Base, scenario: Scenario
) -> None:
    """And the next push does what is left to do."""
    image = server.build(engine, local_base, NETWORK)
    row = play(scenario, image, SEED, range(1), print)
    assert not row.violations, "\n".join(row.violations)
    assert row.tags >= 10, "there was nothing to look at"
    assert row.hits or scenario.name == "disk-full", "the fault met no push"
