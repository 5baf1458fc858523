"""The table of rules: what cannot be combined, and why, in the order in which it is told.

A rule is one small function for each fact. Its parameters name the axes that it is about (see
``Combination``), so that the search can apply it as soon as these are chosen. It returns None, or a
``Reason`` with

* a severity: ``impossible``; ``unverified``, when no fact says either way; ``warn``, when it works
  but something should be known;
* the stage at which it would fail: resolve, compile, import, start or run;
* the source of the fact.
"""

from __future__ import annotations

import inspect
from functools import cache

from imagegen.compat.rules import (
    driver,
    flash_attn,
    flash_attn_package,
    gpu,
    known,
    machine,
    nvcc,
    torch,
)
from imagegen.compat.rules.reason import Rule

RULES: tuple[Rule, ...] = (
    *known.RULES,
    *torch.RULES,
    *nvcc.RULES,
    *flash_attn.RULES,
    *flash_attn_package.RULES,
    *driver.RULES,
    *gpu.RULES,
    *machine.RULES,
)
"""Reasons of one severity are told in this order."""


@cache
def axes_of(rule: Rule) -> tuple[str, ...]:
    """The axes that a rule is about."""
    return tuple(inspect.signature(rule).parameters)
