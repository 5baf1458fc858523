"""What is printed: the same values as text for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from imagegen import pods, report
from imagegen.demo import Demo
from imagegen.doctor import Finding, Fixed
from imagegen.flow import Rendered
from imagegen.model import Layer
from imagegen.report import Format

from . import values
from .values import DEMO, DIGEST, FACTS, KEY, RESOLUTION

Printed = Callable[[], str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """What went to standard output since the last call; nothing may go to the other stream."""

    def read() -> str:
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return read


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (3_900_000, "3.9 MB"),
        (2_850_000_000, "2.85 GB"),
        (12_400_000_000, "12.40 GB"),
    ],
)
def test_a_size_is_in_the_units_of_registries(count: float, text: str) -> None:
    assert report.size(count) == text


def test_a_table_has_columns_and_no_trailing_space() -> None:
    assert report.table(("A", "LONG"), [("wide one", "x"), ("b", "")]) == (
        "A         LONG\nwide one  x\nb"
    )
    assert report.table(("A", "B"), []) == "A  B"
    with pytest.raises(ValueError, match="zip"):
        report.table(("A", "B"), [("a", "b", "c")])


def test_progress_goes_to_standard_error_with_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    report.Progress()("building")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "[   0.0 s] building\n"


@pytest.mark.parametrize("fmt", ["text", "json"])
def test_files_that_were_rendered(fmt: Format, printed: Printed) -> None:
    found = Rendered(targets=3, files=(Path("a/Dockerfile"),), strays=(Path("b"),))
    report.rendered(found, fmt, check=False)
    text = printed()
    if fmt == "json":
        assert json.loads(text) == {"targets": 3, "written": ["a/Dockerfile"], "strays": ["b"]}
    else:
        assert text.splitlines() == [
            "wrote a/Dockerfile",
            "b has no target in the matrix: remove it",
            "3 targets: 1 files written",
        ]


def test_paths(printed: Printed) -> None:
    report.paths([Path("a"), Path("b")], "text")
    report.paths([], "text")
    assert printed() == "wrote a\nwrote b\nnothing to do\n"
    report.paths([Path("a")], "json")
    assert json.loads(printed()) == ["a"]


def test_targets(printed: Printed) -> None:
    chosen = RESOLUTION.select(["*-demo"])
    report.targets(chosen, RESOLUTION, "json")
    rows = json.loads(printed())
    assert [row["id"] for row in rows] == [it.id for it in chosen]
    assert all(row["packages"] == list(RESOLUTION.packages) for row in rows)
    report.targets(chosen, RESOLUTION, "text")
    lines = printed().splitlines()
    assert lines[0].split() == ["TARGET", "CUDA", "TORCH", "SM", "TAG"]
    assert lines[1].split()[0] == chosen[0].id


def test_images_that_were_built(printed: Printed) -> None:
    fresh, old = values.built(), values.built(cached="already built")
    report.built([fresh, old], "text")
    lines = printed().splitlines()
    assert lines[0] == f"{DEMO.id}: built in 61 s"
    assert lines[2] == f"  {DIGEST}, 7.00 GB unpacked"
    assert lines[3] == f"{DEMO.id}: already built"
    report.built([fresh], "json")
    assert json.loads(printed()) == [
        {
            "id": DEMO.id,
            "ref": fresh.image.ref,
            "digest": DIGEST,
            "key": KEY,
            "unpacked_bytes": 7_000_000_000,
            "seconds": 61.2,
            "cached": "",
        }
    ]


def test_checks(printed: Printed) -> None:
    one = values.report("pass", "fail", "skip")
    report.tested([one], "text")
    lines = printed().splitlines()
    assert lines[0] == f"{DEMO.id}: 1 passed, 1 failed, 1 skipped"
    assert [line.split()[0] for line in lines[2:]] == ["pass", "fail", "skip"]
    assert "detail 1" in lines[3]
    report.tested([one], "json")
    (row,) = json.loads(printed())
    assert row["passed"] is False
    assert [check["status"] for check in row["checks"]] == ["pass", "fail", "skip"]
    assert set(row["checks"][0]) == {"name", "status", "detail", "seconds", "guards"}
    report.tested([replace(values.report("pass"), cached="already tested")], "text")
    assert "1 passed, 0 failed, 0 skipped, already tested" in printed()


def test_a_long_detail_is_one_short_line(printed: Printed) -> None:
    one = values.report("fail")
    check = replace(one.checks[0], detail="line\n" * 1000)
    report.tested([replace(one, checks=(check,))], "text")
    lines = printed().splitlines()
    assert len(lines) == 3
    assert len(lines[2]) < 200


def test_images_that_were_pushed(printed: Printed) -> None:
    one = values.pushed()
    report.pushed([one], "text")
    assert printed().splitlines() == [
        f"{DEMO.id}: {DIGEST}",
        *(f"  docker pull {ref}" for ref in one.refs),
        "  2.85 GB to pull in 2 layers, 7.00 GB unpacked",
    ]
    report.pushed([one], "json")
    (row,) = json.loads(printed())
    assert row["pinned"] == one.pinned
    assert row["passed"] is True
    assert row["compressed_bytes"] == sum(layer["bytes"] for layer in row["layers"])
    assert row["refs"] == list(one.refs)


def a_demo() -> Demo:
    steps = (("engine", 0.1, "an engine already runs"), ("build", 59.9, ""))
    return Demo(steps=steps, pushed=values.pushed(), undo=("docker rm -f x",))


def test_the_demo(printed: Printed) -> None:
    made = a_demo()
    templates = {name: pods.template(name, made.pushed, FACTS) for name in pods.PLATFORMS}
    report.demo(made, templates, "text")
    text = printed()
    assert f"tested and pushed: {made.pushed.pinned}" in text
    assert f"imagegen push {DEMO.id} --base bootstrap --repository" in text
    assert "total   60.0" in text
    assert "to undo all of it:\n  docker rm -f x" in text
    assert "850.0 MB  /build/pip-install x" in text
    report.demo(made, templates, "json")
    row = json.loads(printed())
    assert row["templates"] == json.loads(json.dumps(templates))
    assert row["steps"][1] == {"step": "build", "seconds": 59.9, "why": ""}
    assert row["undo"] == ["docker rm -f x"]
    assert row["pinned"] == made.pushed.pinned


def test_the_largest_layers_come_first() -> None:
    layers = [Layer(digest=str(i), compressed=i, created_by="") for i in range(9)]
    assert [layer.compressed for layer in report._largest(layers)] == [8, 7, 6, 5, 4]


def test_what_doctor_saw_and_did(printed: Printed) -> None:
    found = [
        Finding(name="engine", ok=False, detail="none", fix="install it"),
        Finding(name="disk", ok=True, detail="100 GB", fix=""),
    ]
    report.findings(found, "text")
    lines = printed().splitlines()
    assert lines[1].split() == ["MISSING", "engine", "none", "install", "it"]
    assert lines[2].split()[0] == "ok"
    report.findings(found, "json")
    assert [row["ok"] for row in json.loads(printed())] == [False, True]
    done = Fixed(did=("installed it",), undo=("remove it",))
    report.fixed(done, "text")
    assert printed() == "installed it\nto undo:\n  remove it\n"
    report.fixed(done, "json")
    assert json.loads(printed()) == {"did": ["installed it"], "undo": ["remove it"]}
    report.fixed(Fixed(did=(), undo=()), "text")
    assert printed() == "nothing to do\n"
