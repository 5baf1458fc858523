"""The resolver: every combination of the facts, and one question as a command, in one run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import get_args

from imagegen.compat import query
from imagegen.compat.facts import files
from imagegen.compat.rules.reason import Rule
from imagegen.compat.rules.table import RULES
from imagegen.compat.solver import AXES, COST, Domains, Priced, Search, Verdict

ROUNDS = 9
# As people run it: with this set, Python compiles every module anew each time.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
QUESTIONS = {
    "impossible": ["--ubuntu", "24.04", "--cuda", "13.0", "--torch", "2.8", "--python", "3.12"],
    "fine": ["--ubuntu", "24.04", "--cuda", "13.0", "--torch", "2.11", "--python", "3.12"],
    "nothing asked": [],
    "everything wrong": [
        *("--ubuntu", "20.04", "--cuda", "13.1", "--torch", "2.4", "--python", "3.14"),
        *("--gpu", "B200", "--driver", "470", "--flash-attn", "2.5.9.post1"),
        *("--flash-attn-from", "official", "--arch", "aarch64"),
    ],
}


class Survey(Search):
    """The search without its shortcuts: every combination is priced, and none is left early."""

    def count(self) -> dict[Verdict, int]:
        """How many combinations have each verdict."""
        costs: Counter[int] = Counter()
        open_ = self.whole.copy()
        self._price(self.alone, open_, 0)
        self._tally(0, 0, open_, costs)
        found: dict[Verdict, int] = dict.fromkeys(get_args(Verdict), 0)
        for cost, many in costs.items():
            found[verdict(cost)] += many
        return found

    def _tally(self, depth: int, cost: int, open_: list[Priced], costs: Counter[int]) -> None:
        if depth == len(self.order) - 1:
            costs.update(cost + price for _, price in open_[depth])
            return
        for value, price in open_[depth]:
            self.chosen[self.order[depth]] = value
            after = open_.copy()
            self._price(self.ripe[depth], after, cost + price)
            self._tally(depth + 1, cost + price, after, costs)


def survey(domains: Domains, rules: Sequence[Rule] = RULES) -> dict[Verdict, int]:
    """How many of all combinations have each verdict."""
    order = sorted(AXES, key=lambda axis: len(domains[axis]))  # the longest loop is the cheapest
    return Survey(order, domains, rules, limit=1 << 60, enough=-1).count()


def verdict(cost: int) -> Verdict:
    """The verdict of a combination that costs so much."""
    if cost >= COST["impossible"]:
        return "impossible"
    if cost >= COST["unverified"]:
        return "unverified"
    return "warn" if cost else "ok"


def product() -> None:
    """Judge every combination of distribution, toolkit, torch, its CUDA, Python and image kind."""
    known = files.load()
    newest = max(known.flash_attn, key=lambda row: row.version)
    one_each = {"host": ("x86_64",), "flash_attn": (newest,), "origin": ("source",)}
    domains = query.everything(known) | one_each
    start = time.perf_counter()
    verdicts = survey(domains)
    seconds = time.perf_counter() - start
    assert sum(verdicts.values()) == prod(len(values) for values in domains.values())
    words = ", ".join(f"{count} {name}" for name, count in verdicts.items())
    print(f"{sum(verdicts.values())} combinations in {seconds:.2f} s: {words}")


def commands() -> None:
    """Run the questions in turn, so that a busy moment hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    for _ in range(ROUNDS):
        for name, words in QUESTIONS.items():
            argv = [sys.executable, "-m", "imagegen", "why", *words]
            start = time.perf_counter()
            subprocess.run(argv, check=False, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
            seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        print(f"why, {name:<18} {statistics.median(times):.3f} s  (least {min(times):.3f})")


if __name__ == "__main__":
    product()
    commands()
