"""The best target for a machine: it works there, nothing that works is better, and it says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from imagegen.commands import targets
from imagegen.compat.facts.rows import GpuFact
from imagegen.compat.rules.reason import Reason
from imagegen.errors import FactsError, ImpossibleCombination, NothingSelected, UsageError
from imagegen.matrix import pick
from imagegen.matrix.pick import Fit, Machine, Picked
from imagegen.matrix.resolve import Candidate, for_machine
from imagegen.model.target import Python
from tests.support.values import FACTS, PROJECT, RESOLUTION

EVERY = RESOLUTION.combinations
DRIVERS = sorted({v for row in FACTS.cuda for v in (row.driver_floor, row.driver) if v})
WEIGHT = {"impossible": 1_000_000, "unverified": 1_000, "warn": 1}


def card(name: str) -> GpuFact:
    found = FACTS.gpu_named(name)
    assert found
    return found


def machine(*names: str, driver: str = "") -> Machine:
    return Machine(gpus=tuple(map(card, names)), driver=Version(driver) if driver else None)


def picked(*names: str, driver: str = "", **wanted: Any) -> Picked:
    return pick.pick(EVERY, machine(*names, driver=driver), **wanted)


def refused(*names: str, driver: str = "", **wanted: Any) -> ImpossibleCombination:
    with pytest.raises(ImpossibleCombination) as caught:
        picked(*names, driver=driver, **wanted)
    assert caught.value.exit_code == 4
    return caught.value


def said(candidate: Candidate, where: Machine) -> tuple[Reason, ...]:
    """What the rules say of a target there: of the card that they say most of."""
    found = [
        for_machine(candidate, {"gpu": gpu, "driver": where.driver}).reasons
        for gpu in where.gpus or (None,)
    ]
    return max(found, key=weight)


def weight(reasons: tuple[Reason, ...]) -> int:
    return sum(WEIGHT[reason.severity] for reason in reasons)


def notes(reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """What the rules say of its use: building it is over by then."""
    return tuple(reason for reason in reasons if reason.stage not in ("resolve", "compile"))


def held(candidate: Candidate) -> int:
    """How many pairs of a head dimension and a type flash-attn has there."""
    return (
        len(candidate.selection.head_dims) * len(candidate.selection.dtypes)
        if candidate.selection
        else 0
    )


BETTER: tuple[tuple[Callable[[Candidate, tuple[Reason, ...]], Any], str], ...] = (
    (lambda _candidate, reasons: -weight(notes(reasons)), "of that one is to be known: "),
    (lambda candidate, _: held(candidate), "flash-attn's kernels"),
    (lambda candidate, _: candidate.torch.version, "its torch is newer: "),
    (lambda candidate, _: candidate.torch.pypi_cuda == candidate.index, "pinned by hash"),
    (
        lambda candidate, _: (candidate.cuda.version.major, candidate.cuda.version.minor),
        "its CUDA is newer: ",
    ),
    (lambda candidate, _: candidate.os.os, "its distribution is newer: "),
    (lambda candidate, _: candidate.kind == "slim", "it is smaller"),
)
"""The criteria in their order, written down a second time, and the words of each."""


def rank(candidate: Candidate, where: Machine) -> tuple[Any, ...]:
    reasons = said(candidate, where)
    return tuple(key(candidate, reasons) for key, _ in BETTER)


machines = st.builds(
    Machine,
    gpus=st.lists(st.sampled_from(FACTS.gpu), max_size=2, unique_by=lambda g: g.name).map(tuple),
    driver=st.none() | st.sampled_from(DRIVERS),
)


# --- laws -----------------------------------------------------------------------------------------


@given(machines, st.lists(st.sampled_from(EVERY), min_size=1, max_size=12, unique_by=id))
def test_the_best_works_and_nothing_that_works_is_better(
    where: Machine, some: list[Candidate]
) -> None:
    fine = [
        candidate for candidate in some if weight(said(candidate, where)) < WEIGHT["unverified"]
    ]
    try:
        found = pick.pick(some, where)
    except ImpossibleCombination:
        assert not fine
        return
    assert found.best.candidate in fine
    assert found.best.found.verdict in ("ok", "warn")
    assert found.fitting == len(fine)
    ranks = sorted((rank(candidate, where) for candidate in fine), reverse=True)
    assert rank(found.best.candidate, where) == ranks[0]
    if found.next is None:
        assert len(fine) == 1
        assert found.because == "no other target works there"
        return
    assert rank(found.next.candidate, where) == ranks[1]
    differs = [a != b for a, b in zip(ranks[0], ranks[1], strict=True)]
    words = BETTER[differs.index(True)][1] if any(differs) else "only its id comes first"
    assert words in found.because
    if differs[0]:
        known = {reason.code for reason in notes(said(found.best.candidate, where))}
        more = [r for r in notes(said(found.next.candidate, where)) if r.code not in known]
        assert any(reason.text in found.because for reason in more), "the best one has that, too"


@given(machines)
def test_the_order_of_the_targets_does_not_matter(where: Machine) -> None:
    try:
        one = pick.pick(EVERY, where)
    except ImpossibleCombination:
        with pytest.raises(ImpossibleCombination):
            pick.pick(EVERY[::-1], where)
    else:
        assert pick.pick(EVERY[::-1], where).best == one.best


@given(machines)
def test_on_two_cards_only_what_works_on_both(where: Machine) -> None:
    def ids(gpus: tuple[GpuFact, ...]) -> set[str]:
        fits = pick.fitting(EVERY, Machine(gpus=gpus, driver=where.driver))
        return {fit.candidate.id for fit in fits}

    both = set.intersection(*(ids((gpu,)) for gpu in where.gpus)) if where.gpus else ids(())
    assert ids(where.gpus) == both


def test_two_committed_targets_never_rank_alike() -> None:
    """So that "only its id comes first" is not what people are told."""
    for name in ("RTX 4090", "H100", "B200"):
        where = machine(name, driver="610")
        fits = pick.fitting(EVERY, where)
        assert len(fits) > 10
        for one, two in combinations(fits, 2):
            assert rank(one.candidate, where) > rank(two.candidate, where)


# --- known machines -------------------------------------------------------------------------------


def test_a_t4_gets_an_image_without_flash_attn() -> None:
    """It has no kernels for that card, and a target with it does not fit."""
    found = picked("T4", driver="580")
    assert found.best.candidate.flash_attn is None
    assert {fit.candidate.flash_attn for fit in pick.fitting(EVERY, machine("T4"))} == {None}


def test_a_beta_comes_after_what_is_none() -> None:
    """On an A100 it does not even train, and says so."""
    for name in ("H100", "A100"):
        fits = pick.fitting(EVERY, machine(name, driver="610"))
        betas = [i for i, fit in enumerate(fits) if fit.candidate.profile == "fa4"]
        assert betas == [len(fits) - 1]
        codes = {reason.code for reason in fits[-1].notes}
        assert codes >= {"flash-attn-beta", "flash-attn-cute"}
        assert ("flash-attn-backward" in codes) == (name == "A100")


def test_a_v100_has_no_target_and_is_told_why() -> None:
    error = refused("V100", driver="580")
    head, *reasons = str(error).splitlines()
    assert head.startswith("no target works on V100 with driver 580. The closest, ")
    closest = head.partition("The closest, ")[2].rstrip(":")
    (candidate,) = RESOLUTION.select([closest])
    wanted = said(candidate, machine("V100", driver="580"))
    assert reasons == [f"  {reason.code}: {reason.text}" for reason in wanted]
    assert any(line.startswith("  flash-attn-gpu: ") for line in reasons)
    where = machine("V100", driver="580")
    assert weight(wanted) == min(weight(said(candidate, where)) for candidate in EVERY)
    assert error.hint == "what would: imagegen why --gpu V100 --driver 580"
    least = [row for row in EVERY if weight(said(row, where)) == weight(wanted)]
    assert candidate.cuda.driver_floor == min(row.cuda.driver_floor for row in least)


def test_the_hint_can_be_typed_as_it_is() -> None:
    error = refused("GTX 1080 Ti", driver="580.65.06")
    assert error.hint == "what would: imagegen why --gpu 'GTX 1080 Ti' --driver 580.65.06"
    assert refused("V100").hint == "what would: imagegen why --gpu V100"
    assert refused(driver="470").hint == "what would: imagegen why --driver 470"


def test_a_driver_of_cuda_12_gets_no_cuda_13() -> None:
    for driver in ("570", "570.124.06", "575.57.08"):
        where = machine("RTX 4090", driver=driver)
        fits = pick.fitting(EVERY, where)
        assert fits
        assert {fit.candidate.cuda.version.major for fit in fits} == {12}
        assert picked("RTX 4090", driver=driver).best == fits[0]


@pytest.mark.parametrize("driver", ["580", "580.65.06", "610.43.02", ""])
def test_an_h100_with_a_driver_of_cuda_13_gets_cuda_13(driver: str) -> None:
    best = picked("H100", driver=driver).best.candidate
    assert best.cuda.version.major == 13
    assert 90 in best.kernels


def test_a_driver_that_is_too_old_for_everything() -> None:
    error = refused("H100", driver="470.57.02")
    assert "driver: CUDA 12 needs driver 525.60.13 or newer, not 470.57.02" in str(error)


def test_a_blackwell_card_gets_its_architecture() -> None:
    for name, arch in (("RTX 5090", 120), ("B200", 100)):
        assert arch in picked(name, driver="580").best.candidate.kernels


def test_a_card_of_another_host_gets_nothing() -> None:
    assert "gpu-host" in str(refused("GH200", driver="580"))


def test_without_a_card_the_driver_decides_and_without_a_driver_the_card() -> None:
    assert picked(driver="570").best.candidate.cuda.version.major == 12
    assert picked("H100").best.candidate.cuda.version.major == 13
    assert "any card with driver 470" in str(refused(driver="470"))


def test_a_python_and_a_torch_can_be_asked_for() -> None:
    for word in ("3.10", "3.11", "3.12"):
        best = picked("RTX 4090", driver="580", python=Python.parse(word)).best.candidate
        assert str(best.python) == word
    best = picked("RTX 4090", driver="580", torch=Version("2.9")).best.candidate
    assert best.torch.version == Version("2.9.1")
    best = picked("RTX 4090", driver="580", torch=Version("2.9.1")).best.candidate
    assert best.torch.version == Version("2.9.1")


def test_what_no_target_has_is_said() -> None:
    error = refused("RTX 4090", python=Python.parse("3.13"), torch=Version("2.9"))
    assert str(error) == "no target with Python 3.13 with torch 2.9 in this project"
    assert error.hint == "imagegen list"
    assert "no target with torch 2.9.0 in" in str(refused("RTX 4090", torch=Version("2.9.0")))
    assert "no target with Python 3.12 works on T4" in str(
        refused("T4", python=Python.parse("3.12"))
    )


def test_no_target_at_all_is_said() -> None:
    with pytest.raises(ImpossibleCombination, match=r"^no target in this project"):
        pick.pick([], machine("H100"))


# --- why it is the best ---------------------------------------------------------------------------


def one_of(text: str) -> Candidate:
    found = [candidate for candidate in EVERY if text in candidate.id]
    assert found, text
    return found[0]


@pytest.mark.parametrize(
    ("better", "worse", "because"),
    [
        (
            "ubuntu24.04-cuda13.0-torch2.13-py3.12-slim",
            "ubuntu24.04-cuda13.2-torch2.14-py3.12-devel",
            "of that one is to be known: driver 580 is older than the 595 of CUDA 13.2: ",
        ),
        (
            "ubuntu24.04-cuda13.0-torch2.9-py3.12-devel",
            "ubuntu24.04-cuda13.0-torch2.11-py3.12-demo",
            "it holds more of flash-attn's kernels",
        ),
        (
            "ubuntu24.04-cuda12.6-torch2.10-py3.12-slim",
            "ubuntu24.04-cuda12.8-torch2.9-py3.12-slim",
            "its torch is newer: 2.10.0, not 2.9.1",
        ),
        (
            "ubuntu24.04-cuda12.8-torch2.10-py3.12-slim",
            "ubuntu24.04-cuda12.9-torch2.10-py3.12-slim",
            "its torch is on PyPI, and so pinned by hash",
        ),
        (
            "ubuntu24.04-cuda12.9-torch2.10-py3.12-devel",
            "ubuntu24.04-cuda12.6-torch2.10-py3.12-devel",
            "its CUDA is newer: 12.9.2, not 12.6.3",
        ),
        (
            "ubuntu24.04-cuda12.8-torch2.10-py3.12-devel",
            "ubuntu22.04-cuda12.8-torch2.10-py3.10-devel",
            "its distribution is newer: ubuntu24.04, not ubuntu22.04",
        ),
        (
            "ubuntu24.04-cuda12.8-torch2.10-py3.12-slim",
            "ubuntu24.04-cuda12.8-torch2.10-py3.12-devel",
            "it is smaller: one copy of the CUDA libraries",
        ),
    ],
)
def test_because_names_the_first_difference(better: str, worse: str, because: str) -> None:
    rows = [one_of(worse), one_of(better)]
    found = pick.pick(rows, machine("RTX 3090", driver="580"))
    assert found.best.candidate.id == better
    assert found.next
    assert found.next.candidate.id == worse
    assert found.because.startswith(because)
    assert found.fitting == 2


def test_what_is_named_is_what_the_best_one_does_not_have() -> None:
    """Both have CUDA 13.2's newer driver; only the image of NVIDIA's has a gate as well."""
    where = machine("RTX 4090", driver="580.65.06")
    rows = [one_of("cuda13.2-torch2.15-py3.12-devel"), one_of("cuda13.2-torch2.15-py3.12-slim")]
    codes = [[reason.code for reason in notes(said(row, where))] for row in rows]
    assert codes == [["driver-minor", "container-gate"], ["driver-minor"]]
    found = pick.pick(rows, where)
    assert found.best.candidate is rows[1]
    assert found.because.startswith("of that one is to be known: nvidia/cuda:13.2.")


def test_what_is_over_once_it_is_built_makes_it_no_worse() -> None:
    """torch 2.14 needs C++20 to compile flash-attn: that is done."""
    rows = [one_of("cuda13.0-torch2.13-py3.12-slim"), one_of("cuda13.0-torch2.14-py3.12-slim")]
    where = machine("H100", driver="610")
    assert [reason.code for reason in said(rows[1], where)] == ["flash-attn-cxx20"]
    assert pick.pick(rows, where).best.candidate is rows[1]


def test_notes_are_about_its_use() -> None:
    (fit,) = pick.fitting([one_of("cuda13.0-torch2.14-py3.12-slim")], machine("H100", driver="610"))
    assert [reason.code for reason in fit.found.reasons] == ["flash-attn-cxx20"]
    assert fit.notes == ()
    (fit,) = pick.fitting(
        [one_of("cuda13.2-torch2.15-py3.12-slim")], machine("H100", driver="580.65.06")
    )
    assert {reason.stage for reason in fit.notes} <= {"import", "start", "run"}
    assert "driver-minor" in {reason.code for reason in fit.notes}


def test_torch_2_10_is_newer_than_2_9() -> None:
    rows = [one_of("cuda12.6-torch2.9-py3.12-slim"), one_of("cuda12.6-torch2.10-py3.12-slim")]
    best: Fit = pick.pick(rows, machine("H100", driver="580")).best
    assert best.candidate is rows[1]


def test_the_same_twice_is_told_honestly() -> None:
    candidate = one_of("cuda12.8-torch2.10-py3.12-slim")
    found = pick.pick([candidate, replace(candidate)], machine("H100", driver="580"))
    assert found.because == "only its id comes first"


def test_one_that_is_alone_says_so() -> None:
    found = pick.pick([EVERY[-1]], machine("H100", driver="610"))
    assert found.next is None
    assert found.because == "no other target works there"


# --- what the command line hands over -------------------------------------------------------------


def best(gpu: str = "", driver: str = "", *select: str, **more: Any) -> Picked:
    options: dict[str, Any] = {"python": "", "torch": "", "here": False} | more
    return targets.best(PROJECT, select, gpu, driver, **options)


def test_globs_narrow_the_choice() -> None:
    found = best("RTX 4090", "580", "*torch2.8*", "*torch2.9*-devel")
    assert found.best.candidate.torch.version == Version("2.9.1")
    assert found.best.candidate.profile == "devel"
    with pytest.raises(NothingSelected):
        best("RTX 4090", "580", "nothing")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "pick needs a machine"),
        ({"gpu": "H100", "here": True}, "give it or them"),
        ({"driver": "580", "here": True}, "give it or them"),
        ({"gpu": "H100", "driver": "new"}, "--driver new: not a driver's version"),
        ({"gpu": "H100", "python": "three"}, "--python: 'three' is not a Python"),
        ({"gpu": "H100", "torch": "new"}, "--torch 'new': not a version"),
    ],
)
def test_what_cannot_be_asked_is_a_matter_of_usage(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        best(**options)
    assert words in str(caught.value)


def test_an_unknown_card_gives_the_nearest() -> None:
    with pytest.raises(FactsError, match="no fact about a GPU 'RTX 4091'") as caught:
        best("RTX 4091")
    assert "'RTX 4090'" in caught.value.hint
