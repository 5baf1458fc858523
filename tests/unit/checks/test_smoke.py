"""What a checking program says is believed only where its lines and its exit status agree."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.checks import smoke
from imagegen.commands import test
from imagegen.engine.docker import Docker
from imagegen.model.report import Asked, Check, Level
from imagegen.util import files
from imagegen.util.process import Ran
from tests.support.laws import for_all
from tests.support.logs import listening
from tests.support.values import DEMO, DIGEST, report

INSIDE = smoke.MODULES


def row(name: str = "nvcc", status: str = "pass", **more: object) -> str:
    return json.dumps({"name": name, "status": status, "detail": "13.0", "seconds": 0.5, **more})


def heard(*lines: str) -> tuple[list[Check], list[str]]:
    found, listen = smoke._listener()
    with listening() as said:
        for line in lines:
            listen(line)
    return found, said


def settled(*statuses: str, code: int) -> list[tuple[str, str]]:
    found, _ = heard(*(row(f"check {i}", status) for i, status in enumerate(statuses)))
    ran = Ran(code=code, out="", err="Traceback\nSegmentation fault\n")
    return [(check.name, check.status) for check in smoke._settled(found, ran, ())]


def every(modules: tuple[str, ...] = INSIDE, but: str = "") -> list[str]:
    """A line for each check that imagegen's own files define."""
    return [row(name) for name in sorted(smoke.names(modules)) if name != but]


def test_json_lines_are_checks_and_other_lines_are_passed_on() -> None:
    found, said = heard("loading torch", row(guards="a bug"), "", row("ssh", "fail"))
    assert found == [
        Check(name="nvcc", status="pass", detail="13.0", seconds=0.5, guards="a bug"),
        Check(name="ssh", status="fail", detail="13.0", seconds=0.5, guards=""),
    ]
    assert said[0] == "loading torch"
    assert said[1] == "pass nvcc (0.5 s) 13.0"
    assert said[3].startswith("fail ssh")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "{}",
        "[]",
        "null",
        "3",
        '"text"',
        row(status="PASS"),
        row(status="error"),
        row(seconds="soon"),
        row(seconds=None),
        json.dumps({"name": "x", "status": ["pass"], "detail": "", "seconds": 1}),
        json.dumps({"name": "x", "status": "pass", "seconds": 1}),
        json.dumps({"name": "x", "status": "pass", "detail": ""}),
    ],
)
def test_a_line_that_is_no_check_is_none(line: str) -> None:
    found, said = heard(line)
    assert not found
    assert said == [line]


@given(st.text())
def test_no_line_stops_the_listener(line: str) -> None:
    found, said = heard(line)
    assert not found
    assert said == [line]


@pytest.mark.parametrize("code", [0, 1, 137])
def test_a_program_that_says_nothing_failed(code: int) -> None:
    ran = Ran(code=code, out="", err="")
    (check,) = smoke._settled([], ran)
    assert (check.name, check.status) == ("smoke", "fail")


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (("pass", "pass"), 1),  # it died after its last line
        (("pass", "skip"), 139),
        (("pass", "fail"), 0),  # it says that all is well, and its lines do not
        (("skip",), 2),
    ],
)
def test_lines_and_an_exit_status_that_disagree_are_a_failure(
    statuses: tuple[str, ...], code: int
) -> None:
    assert settled(*statuses, code=code)[len(statuses) :] == [("smoke", "fail")]


@pytest.mark.parametrize(
    ("statuses", "code"),
    [(("pass", "pass"), 0), (("pass", "skip"), 0), (("pass", "fail"), 1), (("fail",), 3)],
)
def test_lines_and_an_exit_status_that_agree_are_all(statuses: tuple[str, ...], code: int) -> None:
    assert [status for _, status in settled(*statuses, code=code)] == list(statuses)


def test_the_failure_says_how_it_ended() -> None:
    found, _ = heard(row())
    ran = Ran(code=139, out="", err="x" * 1000 + "Segmentation fault\n")
    detail = smoke._settled(found, ran, ())[-1].detail
    assert detail.startswith("it ended with 139 after 1 checks: x")
    assert detail.endswith("Segmentation fault")
    assert len(detail) < 500


# --- what has to be reported ----------------------------------------------------------------------


def test_the_names_are_those_of_our_own_files() -> None:
    assert {"nvcc", "torch_version", "flash_attn_kernels", "packages_import"} <= smoke.names(
        ("cpu",)
    )
    assert {"flash_attn_forward_backward", "llama_trains"} <= smoke.names(("gpu",))
    assert {"nccl_all_gpus", "torch_compile", "cpp_extension"} <= smoke.names(("device",))
    assert smoke.names(INSIDE) == set().union(*(smoke.names((name,)) for name in INSIDE))
    for module in INSIDE:
        text = (files.context_image() / f"checks/{module}.py").read_text()
        marked = re.findall(r"^@check\b(?:.|\n)*?^def (\w+)", text, re.MULTILINE)
        assert smoke.names((module,)) == set(marked)
        assert len(marked) >= 5


def test_all_of_them_are_enough() -> None:
    found, _ = heard(*every(), row("one more"))
    ran = Ran(code=0, out="", err="")
    assert smoke._settled(found, ran) == tuple(found)


@for_all(sorted(smoke.names(INSIDE)), str)
def test_an_image_that_leaves_a_check_out_fails(name: str) -> None:
    found, _ = heard(*every(but=name))
    *rest, last = smoke._settled(found, Ran(code=0, out="", err=""))
    assert rest == found
    assert (last.name, last.status) == ("smoke", "fail")
    assert f"after {len(found)} checks, without {name}: " in last.detail


def test_one_that_is_skipped_is_not_missing() -> None:
    found, _ = heard(*every(but="llama_trains"), row("llama_trains", "skip"))
    assert len(smoke._settled(found, Ran(code=0, out="", err=""))) == len(found)


def test_the_version_of_the_checks_is_short_and_stays() -> None:
    assert re.fullmatch(r"[0-9a-f]{8}", test.version())
    assert test.version() == test.version()


def test_the_version_changes_with_what_is_asked_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, home = test.version(), Path(smoke.__file__).parents[1]
    for folder in ("checks", "engine", "platforms"):
        hidden = shutil.ignore_patterns("__pycache__")
        shutil.copytree(home / folder, tmp_path / folder, ignore=hidden)
    monkeypatch.setattr(test, "resources", SimpleNamespace(files=lambda _: tmp_path))
    assert test.version() == before
    for name in (
        *("checks/contract.py", "engine/container.py", "platforms/vast/contract_pods.py"),
        *("platforms/vast/launch", "platforms/vast/onstart"),
    ):
        file = tmp_path / name
        text = file.read_text()
        if file.suffix:
            file.write_text(f"# a comment\n{text}")
            assert test.version() == before, "a comment asks nothing else"
        file.write_text(f"{text}\nX = 1\n")
        assert test.version() != before
        file.write_text(text)
    versions = set()
    for text in ('"""Says."""\nX = 1\n', '"""Says something else."""\nX = 1\n'):
        (tmp_path / "checks/more.py").write_text(text)
        versions.add(test.version())
    assert len(versions) == 1, "a docstring asks nothing else"
    assert before not in versions
    for name in ("engine/archive.py", "platforms/apply.py", "platforms/vast/client.py"):
        (tmp_path / name).write_text("X = 1\n")
    (tmp_path / "checks/more.py").unlink()
    assert test.version() == before, "what asks nothing does not count"


# --- inside, with a stand-in for the engine -------------------------------------------------------


class Engine:
    """Answers a run with lines and an exit status."""

    def __init__(self, *lines: str, code: int = 0) -> None:
        self.lines, self.code = lines, code
        self.runs: list[dict[str, Any]] = []

    def run(
        self,
        ref: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        on_line: Callable[[str], None],
        **options: object,
    ) -> Ran:
        self.runs.append({"ref": ref, "argv": list(argv), "env": env, **options})
        for line in self.lines:
            on_line(line)
        return Ran(code=self.code, out="\n".join(self.lines), err="")


def inside(engine: Engine, *levels: Level, require: str = "") -> tuple[Check, ...]:
    asked = Asked(levels=levels or ("smoke",), required=frozenset({require} - {""}))
    of = cast(Docker, engine)
    return smoke.inside(of, DIGEST, promise=DEMO.promise, asked=asked)


def test_the_promise_is_the_targets_and_the_image_is_taken_by_digest() -> None:
    engine = Engine(*every())
    found = inside(engine)
    assert {check.status for check in found} == {"pass"}
    assert {check.name for check in found} == smoke.names(INSIDE)
    (run,) = engine.runs
    assert run["ref"] == DIGEST
    assert json.loads(run["env"]["IMAGEGEN_PROMISE"]) == DEMO.promise
    assert run["argv"][-2:] == ["--level", "cpu"]
    assert not run["gpus"]
    assert run["timeout"] > 0


def test_with_a_gpu_the_checks_of_a_gpu_run() -> None:
    engine = Engine(row())
    inside(engine, "gpu")
    assert engine.runs[0]["argv"][-2:] == ["--level", "gpu"]
    assert engine.runs[0]["gpus"]


def test_what_is_required_is_run_and_may_not_be_skipped() -> None:
    engine = Engine(row())
    inside(engine, require="gpu")
    assert engine.runs[0]["argv"][-4:] == ["--level", "gpu", "--require", "gpu"]
    assert engine.runs[0]["gpus"]
    skipped = Check(name="R19", status="skip", detail="needs a GPU", seconds=0, needs="gpu")
    failed = test._required(skipped, frozenset({"gpu"}))
    assert (failed.status, failed.detail) == ("fail", "skipped: needs a GPU; it is required")
    for same in (
        dataclasses.replace(skipped, needs="registry"),
        dataclasses.replace(skipped, status="pass"),
    ):
        assert test._required(same, frozenset({"gpu"})) is same
    assert test._required(skipped, frozenset()) is skipped


def test_an_image_without_checks_does_not_pass() -> None:
    found = inside(Engine("bash: /opt/venv/bin/python: No such file or directory", code=127))
    assert [check.status for check in found] == ["fail"]
    assert "it ended with 127 after 0 checks" in found[0].detail
    assert not report(*(check.status for check in found)).passed
