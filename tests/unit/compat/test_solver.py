"""The search: laws over parts of the facts and of the values, against trying everything."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from packaging.version import Version

from benchmarks.resolve import survey
from imagegen.compat.facts.rows import CudaFact, FlashAttnFact, OsFact, TorchFact
from imagegen.compat.facts.tables import Facts
from imagegen.compat.query import Question, narrowed
from imagegen.compat.rules.reason import Reason, Rule
from imagegen.compat.rules.table import RULES, axes_of
from imagegen.compat.solver import (
    AXES,
    COST,
    LIGHT,
    Combination,
    Found,
    Verdict,
    best,
    first_fine,
    graded,
    judged,
    price_of,
)
from imagegen.model.target import Host, Kind, Origin
from tests.support.values import FACTS

Domains = dict[str, Sequence[Any]]
GRADES: tuple[Verdict, ...] = ("ok", "warn", "unverified", "impossible")
DRIVERS = tuple(
    Version(text)
    for text in ("470.86", "525.60.13", "550.54.15", "570", "575.51.03", "580.95.05", "595", "615")
)
WORKING = (
    Question(os="ubuntu24.04", torch="2.8", cuda="12.8", gpu="RTX 5090", driver="580.95.05"),
    Question(os="ubuntu22.04", torch="2.5", index="cu121", flash_attn="2.7.4.post1"),
    Question(os="debian12", torch="2.11", cuda="13.0", origin="source", memory="16"),
    Question(os="ubuntu24.04", torch="2.10", cuda="12.9", index="cu128", origin="source"),
    Question(os="ubuntu26.04", gpu="B200", driver="595", flash_attn="none"),
    Question(os="ubuntu24.04", gpu="GH200", host="aarch64", torch="2.11", python="3.13"),
)
"""What can work, so that not everything that is drawn is impossible."""


@cache
def answered(question: Question) -> Found:
    found = best(narrowed(FACTS, question))
    assert found
    return found


# --- what is drawn --------------------------------------------------------------------------------


def some(values: Sequence[Any], most: int) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(
        st.sampled_from(values), min_size=1, max_size=most, unique_by=lambda value: str(value)
    ).map(tuple)


def fewer(values: Sequence[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(values), unique_by=id).map(tuple) if values else st.just(())


KNOWN: Domains = {
    "host": get_args(Host),
    "gpu": (None, *FACTS.gpu),
    "driver": (None, *DRIVERS),
    "memory": (None, 4, 5, 16),
    "torch": FACTS.torch,
    "index": FACTS.indexes,
    "cuda": FACTS.cuda,
    "flash_attn": (None, *FACTS.flash_attn_releases),
    "origin": get_args(Origin),
    "os": FACTS.os,
    "python": FACTS.pythons,
    "kind": get_args(Kind),
    "archs": ((), (80,), (90, 120)),
}


@st.composite
def domains(draw: st.DrawFn, most: int = 2) -> Domains:
    """A few values of every axis, in any order of preference; often those of what works, too."""
    start = draw(st.none() | st.sampled_from(WORKING))
    apart = draw(st.integers(0, 4))
    found: Domains = {}
    for axis, values in KNOWN.items():
        few = 1 if axis in ("host", "driver", "memory", "archs") else most
        found[axis] = draw(some(values, few))
        if start and draw(st.integers(0, 5)) >= apart - 2:
            good = getattr(answered(start).combination, axis)
            found[axis] = draw(st.permutations([good, *found[axis][: few - 1]]).map(tuple))
    if not start or draw(st.integers(0, 3)) == 0:  # the rows themselves may know less
        found["torch"] = tuple(draw(less_of_torch(row)) for row in found["torch"])
        found["cuda"] = tuple(
            row.model_copy(update={"base": draw(fewer(row.base))}) for row in found["cuda"]
        )
        found["flash_attn"] = tuple(
            row.model_copy(update={"wheel": draw(fewer(row.wheel))})
            if isinstance(row, FlashAttnFact)
            else row
            for row in found["flash_attn"]
        )
    return {axis: found[axis] for axis in AXES}


@st.composite
def less_of_torch(draw: st.DrawFn, row: TorchFact) -> TorchFact:
    update = {"build": draw(fewer(row.build)), "pythons": draw(fewer(row.pythons))}
    return row.model_copy(update=update)


some_rules = st.lists(st.sampled_from(RULES), unique=True).map(
    lambda chosen: tuple(rule for rule in RULES if rule in chosen)
)


# --- trying everything ----------------------------------------------------------------------------


def every(values: Domains, order: Sequence[str] = AXES) -> Iterator[Combination]:
    """All combinations; the last axis of the order changes fastest."""
    for chosen in product(*(values[axis] for axis in order)):
        yield Combination(**dict(zip(order, chosen, strict=True)))


def cost(found: Found) -> int:
    return sum(map(price_of, found.reasons))


def grade(found: Found | None) -> int:
    assert found
    return GRADES.index(found.verdict)


def same(one: Found | None, other: Found | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.combination == other.combination and one.reasons == other.reasons


# --- best -----------------------------------------------------------------------------------------


@given(domains())
def test_best_is_the_first_of_those_with_the_least_against_them(values: Domains) -> None:
    """Axis by axis in the order of Combination, value by value in the order of preference."""
    tried = [judged(combination) for combination in every(values)]
    assert same(best(values), min(tried, key=cost))


@given(domains(), some_rules)
def test_best_is_that_under_any_rules(values: Domains, rules: tuple[Rule, ...]) -> None:
    tried = [judged(combination, rules) for combination in every(values)]
    found = best(values, rules=rules)
    assert same(found, min(tried, key=cost))
    assert grade(found) == min(map(grade, tried))


@given(domains(most=1), st.sampled_from(AXES))
def test_without_any_value_there_is_no_combination(values: Domains, axis: str) -> None:
    values[axis] = ()
    assert best(values) is None
    assert first_fine(values, ()) is None


QUESTIONS = (
    Question(),
    Question(os="debian12", gpu="RTX 4090", driver="570"),
    Question(torch="2.9", python="3.12"),
    Question(cuda="12.8", flash_attn="2.8.3", gpu="H100"),
    Question(python="3.13t", host="aarch64"),
    Question(torch="2.6", flash_attn="2.8.2", origin="third-party", gpu="RTX 5090"),
)


@settings(max_examples=20)
@given(st.sampled_from(QUESTIONS), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(question: Question, chance: random.Random) -> None:
    tables = ("torch", "cuda", "base", "os", "flash_attn", "gpu")
    facts = FACTS.model_copy(update={name: mixed(FACTS, name, chance) for name in tables})
    found = best(narrowed(facts, question))
    assert found
    assert same(found, answered(question))


def mixed(facts: Facts, table: str, chance: random.Random) -> tuple[Any, ...]:
    rows = getattr(facts, table)
    return tuple(chance.sample(rows, len(rows)))


# --- first_fine -----------------------------------------------------------------------------------


@given(domains(), st.lists(st.sampled_from(AXES), unique=True, max_size=3))
def test_first_fine_is_the_first_of_those_with_the_least_to_know(
    values: Domains, first: list[str]
) -> None:
    """Nothing, one thing, two, or more: only then what is closer counts."""
    order = [*filter(first.__contains__, AXES), *(axis for axis in AXES if axis not in first)]
    found = first_fine(values, first)
    works = [one for one in map(judged, every(values, order)) if one.fine]
    assert same(found, min(works, key=lambda one: min(3, (cost(one) + 1) // 2), default=None))
    assert found is None or found.fine
    assert (found is None) == (grade(best(values)) > GRADES.index("warn"))


def test_first_fine_finds_something_and_finds_nothing() -> None:
    """So that the law above is about both."""
    open_ = narrowed(FACTS, Question(torch="2.8", cuda="12.8"))
    found = first_fine(open_, ("os",))
    assert found
    assert found.fine
    assert first_fine(narrowed(FACTS, Question(torch="2.8", cuda="13.0")), ("os",)) is None


# --- survey ---------------------------------------------------------------------------------------


@given(domains(), some_rules)
def test_a_survey_counts_what_is_found_one_by_one(values: Domains, rules: tuple[Rule, ...]) -> None:
    """The benchmark's figures are those of every combination, judged by the same search."""
    for some in (RULES, rules):
        counts = survey(values, some)
        assert set(counts) == set(get_args(Verdict))
        tried = Counter(judged(changed, some).verdict for changed in every(values))
        assert {verdict: many for verdict, many in counts.items() if many} == tried


# --- rules and values -----------------------------------------------------------------------------


def told(combination: Combination, rule: Rule) -> Reason | None:
    return rule(*(getattr(combination, axis) for axis in axes_of(rule)))


@given(domains(most=1))
def test_an_impossible_combination_is_so_because_of_the_rules_that_say_so(values: Domains) -> None:
    whole = judged(next(every(values)))
    combination = whole.combination
    forbid = [
        rule
        for rule in RULES
        if (said := told(combination, rule)) and said.severity == "impossible"
    ]
    assume(forbid)
    assert whole.verdict == "impossible"
    assert len(forbid) == sum(reason.severity == "impossible" for reason in whole.reasons)
    for rule in forbid:
        reason = told(combination, rule)
        rest = judged(combination, [other for other in RULES if other is not rule])
        assert reason in whole.reasons
        assert reason not in rest.reasons
        assert Counter(whole.reasons) - Counter(rest.reasons) == Counter([reason])
    without = judged(combination, [rule for rule in RULES if rule not in forbid])
    assert without.verdict != "impossible"
    assert without.reasons == tuple(r for r in whole.reasons if r.severity != "impossible")


@given(domains(), st.sampled_from(RULES))
def test_a_rule_less_makes_no_verdict_worse(values: Domains, rule: Rule) -> None:
    rest = [other for other in RULES if other is not rule]
    assert grade(best(values, rules=rest)) <= grade(best(values))
    for combination in every({axis: values[axis][:1] for axis in AXES}):
        assert grade(judged(combination, rest)) <= grade(judged(combination))


@given(domains(), domains(), st.sampled_from(AXES))
def test_more_values_make_no_verdict_worse(values: Domains, more: Domains, axis: str) -> None:
    wider = values | {axis: (*values[axis], *more[axis])}
    found, before = best(wider), best(values)
    assert grade(found) <= grade(before)
    assert found
    assert before
    assert cost(found) <= cost(before)


# --- reasons and verdicts -------------------------------------------------------------------------


def reason(severity: Any, code: str = "x", *, missing: bool = False) -> Reason:
    return Reason(code=code, severity=severity, stage="run", text="t", source="s", missing=missing)


def test_one_graver_reason_weighs_more_than_all_lighter_ones() -> None:
    most = len(RULES) * 2
    assert price_of(reason("impossible")) > most * price_of(reason("unverified"))
    assert price_of(reason("unverified")) > most * price_of(reason("warn"))
    assert price_of(reason("warn")) > 0
    assert price_of(reason("impossible", missing=True)) == 4 * COST["impossible"]


def test_what_a_newer_driver_or_our_own_dockerfile_ends_weighs_half() -> None:
    assert {code for code in CODES if price_of(reason("warn", code)) == 1} >= LIGHT
    assert {code for code in CODES if price_of(reason("warn", code)) == 2} == CODES - LIGHT
    assert COST["warn"] == 2


CODES = {"driver-minor", "container-gate", "nvcc-minor", "python-distribution", "pip-guess"}


@given(st.lists(st.sampled_from(("impossible", "unverified", "warn")), max_size=8))
def test_the_gravest_come_first_and_the_rest_keeps_its_order(severities: list[str]) -> None:
    rows = [reason(severity, str(i)) for i, severity in enumerate(severities)]
    found = graded(rows)
    assert sorted(found, key=lambda r: int(r.code)) == rows
    weights = [(-COST[r.severity], int(r.code)) for r in found]
    assert weights == sorted(weights)


@pytest.mark.parametrize(
    ("severities", "verdict"),
    [
        ((), "ok"),
        (("warn",), "warn"),
        (("warn", "unverified"), "unverified"),
        (("unverified", "impossible", "warn"), "impossible"),
    ],
)
def test_the_verdict_is_the_gravest_reason(severities: tuple[str, ...], verdict: Verdict) -> None:
    combination = answered(QUESTIONS[0]).combination
    found = Found(combination=combination, reasons=graded(map(reason, severities)))
    assert found.verdict == verdict
    assert found.fine == (verdict in ("ok", "warn"))


# --- combinations ---------------------------------------------------------------------------------


@given(domains(most=1))
def test_what_is_spelled_finds_the_same_values(values: Domains) -> None:
    combination = next(every(values))
    words = {axis: "" if word == "none" else word for axis, word in combination.spelled.items()}
    kind = words.pop("kind")
    assert kind == combination.kind
    axes = ["gpu", "driver", "memory", "index", "python", "host"]
    if combination.flash_attn is None:
        words |= {"flash_attn": "none", "origin": ""}  # which has no origin
    else:
        axes.append("origin")
    again = narrowed(FACTS, Question(**words))
    assert [str(row.version) for row in again["torch"]] == [str(combination.torch.version)]
    assert [str(row.version) for row in again["cuda"]] == [str(combination.cuda.version)]
    assert again["os"] == (combination.os,)
    for axis in axes:
        assert again[axis] == (getattr(combination, axis),)
    assert [row and row.version for row in again["flash_attn"]] == [
        combination.flash_attn and combination.flash_attn.version
    ]


def test_the_order_of_the_axes_is_that_of_their_preferences() -> None:
    """What is chosen first is given up last: torch before the distribution, the image last."""
    assert AXES == (
        "host", "gpu", "driver", "memory", "torch", "index", "origin", "flash_attn", "os",
        "python", "cuda", "kind", "archs",
    )  # fmt: skip


def changed(**changes: Any) -> Combination:
    values = {axis: getattr(answered(QUESTIONS[0]).combination, axis) for axis in AXES}
    return Combination(**(values | changes))


def row(table: Sequence[Any], version: str) -> Any:
    return next(one for one in table if str(one.version) == version)


def test_nvcc_comes_from_wheels_in_slim_images_of_cuda_13() -> None:
    old: CudaFact = row(FACTS.cuda, "12.9.1")
    new: CudaFact = row(FACTS.cuda, "13.0.0")
    ubuntu: OsFact = next(one for one in FACTS.os if one.os.name == "ubuntu24.04")
    for kind, cuda, wheels in (
        ("slim", new, True),
        ("slim", old, False),
        ("devel", new, False),
        ("devel", old, False),
    ):
        combination = changed(kind=kind, cuda=cuda, os=ubuntu)
        assert combination.from_wheels == wheels
        assert (combination.base is None) == wheels
        assert combination.base is None or (combination.base.kind, combination.base.cuda) == (
            kind,
            cuda.version,
        )


def test_the_kernels_of_a_combination() -> None:
    release: FlashAttnFact = row(FACTS.flash_attn, "2.8.3")
    old = row(FACTS.cuda, "12.6.3")
    assert changed(flash_attn=None).kernels == ()
    assert changed(flash_attn=None).wheel is None
    compiled = changed(flash_attn=release, origin="source", cuda=old, archs=())
    assert compiled.kernels == (80, 90)
    assert compiled.wheel is None
    assert changed(flash_attn=release, origin="source", archs=(90,)).kernels == (90,)
    taken = changed(
        flash_attn=release, origin="official", cuda=old, torch=row(FACTS.torch, "2.8.0"),
        index=Version("12.8"), python=FACTS.os[2].python, host="x86_64",
    )  # fmt: skip
    assert taken.wheel in release.wheel
    assert taken.kernels == release.wheel_archs
