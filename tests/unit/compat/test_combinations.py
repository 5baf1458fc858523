"""The table of combinations that people really asked for, and what ``why`` says of each."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import TypedDict, get_args

import pytest

from imagegen.compat import why
from imagegen.compat.query import OPTIONS, Question
from imagegen.compat.rules import table
from imagegen.compat.solver import Verdict
from tests.support.laws import hold
from tests.support.values import FACTS


class Row(TypedDict):
    ask: list[str]
    verdict: Verdict
    code: str
    source: str
    note: str


FILE = Path(__file__).with_name("combinations.toml")
ROWS: list[Row] = tomllib.loads(FILE.read_text(encoding="utf-8"))["combination"]
AXIS = {option: axis for axis, option in OPTIONS.items()} | {"--debian": "os"}
NOT_FROM_WHY = {"flash-attn-archs"}
"""Only a matrix selects architectures, and every known nvcc makes one of each flash-attn's."""


def question(ask: list[str]) -> Question:
    values: dict[str, str] = {}
    for option, word in zip(ask[::2], ask[1::2], strict=True):
        prefix = option.removeprefix("--") if AXIS[option] == "os" else ""
        assert AXIS[option] not in values, f"{option}: asked twice"
        values[AXIS[option]] = prefix + word
    return Question(**values)


def impossible_codes() -> set[str]:
    """Every code that a rule writes into an impossible reason."""
    sources = {inspect.getsource(inspect.getmodule(rule) or table) for rule in table.RULES}
    found = re.findall(r"\b(?:impossible|missing)\(\s*\"([a-z0-9-]+)\"", "\n".join(sources))
    return set(found)


# --- what it says of each -------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_the_answer(verdict: Verdict) -> None:
    rows = [row for row in ROWS if row["verdict"] == verdict]
    hold(is_answered, rows, lambda row: " ".join(row["ask"]))


def is_answered(row: Row) -> None:
    asked = question(row["ask"])
    found = why.answer(FACTS, asked)
    told = [(reason.code, reason.severity) for reason in found.found.reasons]
    assert found.found.verdict == row["verdict"], told
    if row["code"]:
        assert (row["code"], row["verdict"]) in told
    else:
        assert row["verdict"] == "ok"
    for near in found.near:  # and what it names instead keeps the rest of what was asked for
        assert near.found.fine
        kept = set(asked.axes) - set(near.changed)
        again = Question(**{axis: getattr(asked, axis) for axis in kept} | _new(near))
        assert why.answer(FACTS, again).found.fine


def _new(near: why.Near) -> dict[str, str]:
    return {axis: new for axis, (_, new) in near.changed.items()}


# --- the table ------------------------------------------------------------------------------------


def test_there_are_enough_and_at_least_half_cannot_work() -> None:
    verdicts = Counter(row["verdict"] for row in ROWS)
    assert len(ROWS) >= 60
    assert 2 * verdicts["impossible"] >= len(ROWS)
    assert set(verdicts) == set(get_args(Verdict))


def test_every_row_says_where_it_was_met_and_what_happens() -> None:
    for row in ROWS:
        assert set(row) == set(Row.__annotations__), row["ask"]
        assert len(row["source"].strip()) > 4, row["ask"]
        assert row["note"].strip().endswith("."), row["ask"]


def test_nothing_is_asked_twice() -> None:
    asked = Counter(question(row["ask"]) for row in ROWS)
    assert [one for one, times in asked.items() if times > 1] == []


def test_the_rows_are_sorted() -> None:
    order = ["impossible", "ok", "unverified", "warn"]
    keys = [(order.index(row["verdict"]), row["code"]) for row in ROWS]
    assert keys == sorted(keys)


def test_every_rule_that_forbids_is_covered() -> None:
    codes = impossible_codes()
    assert {"torch-cuda", "memory", "toolkit-pin", "flash-attn-abi"} <= codes
    covered = {row["code"] for row in ROWS if row["verdict"] == "impossible"}
    assert covered <= codes
    assert codes - covered == NOT_FROM_WHY


def test_every_option_is_asked_for() -> None:
    assert {option for row in ROWS for option in row["ask"][::2]} == set(AXIS)
