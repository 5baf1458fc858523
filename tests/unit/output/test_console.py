"""What is printed: the same values as text for people and as JSON for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from imagegen.commands import targets
from imagegen.commands.demo import Demo
from imagegen.commands.files import Rendered
from imagegen.commands.targets import ListedTarget
from imagegen.compat.rules.reason import Reason
from imagegen.doctor.model import Finding, Fixed
from imagegen.errors import RegistryError
from imagegen.matrix.pick import Picked
from imagegen.matrix.resolve import LeftOut
from imagegen.model.image import Layer
from imagegen.output import console, files, images, machine
from imagegen.output import targets as targets_
from imagegen.output.console import Format
from imagegen.output.progress import Progress
from imagegen.platforms import PLATFORMS
from imagegen.platforms.spec import Wish
from imagegen.publish.push import PushResult
from tests.support import values
from tests.support.values import DEMO, DIGEST, FACTS, KEY, PROJECT, RESOLUTION

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
    assert console.size(count) == text


def test_a_table_has_columns_and_no_trailing_space() -> None:
    assert console.table(("A", "LONG"), [("wide one", "x"), ("b", "")]) == (
        "A         LONG\nwide one  x\nb"
    )
    assert console.table(("A", "B"), []) == "A  B"
    with pytest.raises(ValueError, match="zip"):
        console.table(("A", "B"), [("a", "b", "c")])


def test_progress_goes_to_standard_error_with_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    logger, handler = logging.getLogger("watched"), Progress()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        logger.info("building %s", "100%")
        logger.debug("+ docker")
    finally:
        logger.removeHandler(handler)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "[   0.0 s] building 100%\n"


@pytest.mark.parametrize("fmt", ["text", "json"])
def test_files_that_were_rendered(fmt: Format, printed: Printed) -> None:
    found = Rendered(targets=3, files=(Path("a/Dockerfile"),), strays=(Path("b"),))
    files.rendered(found, fmt, check=False)
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
    files.paths([Path("a"), Path("b")], "text")
    files.paths([], "text")
    assert printed() == "wrote a\nwrote b\nnothing to do\n"
    files.paths([Path("a")], "json")
    assert json.loads(printed()) == ["a"]


def listed(*select: str) -> tuple[ListedTarget, ...]:
    return targets.listed(PROJECT, select, "", "")


def test_targets(printed: Printed) -> None:
    rows = listed("*-demo", "*torch2.14*-slim")
    targets_.targets(rows, "json")
    found = json.loads(printed())
    assert [row["id"] for row in found] == [row.target.id for row in rows]
    for row, wanted in zip(found, rows, strict=True):
        assert {key: row[key] for key in wanted.target.promise} == wanted.target.promise
        assert row["packages"] == list(RESOLUTION.packages)
        assert row["tag"] == wanted.target.tag
        assert row["aliases"] == [n for n, id_ in PROJECT.aliases.items() if id_ == row["id"]]
        assert row["unlocked"] == list(wanted.unlocked)
        assert [reason["code"] for reason in row["reasons"]] == [r.code for r in wanted.reasons]
        assert set(row) - set(wanted.target.promise) == {"tag", "aliases", "unlocked", "reasons"}
    assert any(row["aliases"] for row in found)
    assert any(row["reasons"] for row in found)
    targets_.targets(rows, "github")
    assert json.loads(printed()) == {
        "include": [{"id": row.target.id, "tag": row.target.tag} for row in rows]
    }


def test_targets_as_a_table(printed: Printed) -> None:
    reason = Reason(code="some-rule", severity="warn", stage="run", text="It is so.", source="x")
    row = listed(DEMO.id)[0]
    rows = [
        replace(row, unlocked=("base", "torch"), reasons=(reason, reason), aliases=("a", "b")),
        replace(row, unlocked=(), reasons=(), aliases=()),
    ]
    targets_.targets(rows, "text")
    head, one, two = printed().splitlines()
    starts = {word: head.index(word) for word in ("UNLOCKED", "NOTES", "TAG", "ALIASES")}
    assert head.split() == [
        *("TARGET", "CUDA", "TORCH", "FLASH-ATTN", "UNLOCKED", "NOTES", "TAG", "ALIASES"),
    ]
    assert one.split()[0] == two.split()[0] == DEMO.id
    assert one[starts["UNLOCKED"] :].startswith("base, torch  some-rule  ")
    assert one[starts["TAG"] :] == f"{DEMO.tag}  a, b"
    assert two[starts["UNLOCKED"] :].startswith("none  ")
    assert two[starts["NOTES"] : starts["TAG"]].strip() == ""
    assert two.endswith(DEMO.tag)


def test_what_is_left_out_has_every_reason(printed: Printed) -> None:
    made = [
        Reason(code=code, severity="impossible", stage="compile", text=text, source="a book")
        for code, text in (("one", "It cannot."), ("two", "It may not."))
    ]
    (candidate,) = values.RESOLUTION.select([DEMO.id])
    row = LeftOut(candidate=candidate, reasons=tuple(made), excluded=False)
    assert row.id == DEMO.id
    targets_.left_out([row], "text")
    assert [line.split() for line in printed().splitlines()] == [
        ["LEFT", "OUT", "RULE", "WHY", "SOURCE"],
        [DEMO.id, "one", "It", "cannot.", "a", "book"],
        ["two", "It", "may", "not.", "a", "book"],
    ]
    targets_.left_out([row], "json")
    assert json.loads(printed()) == [
        {
            "id": DEMO.id,
            "reason": "It cannot.",
            "source": "a book",
            "reasons": [
                {
                    "code": reason.code,
                    "severity": "impossible",
                    "stage": "compile",
                    "text": reason.text,
                    "source": "a book",
                }
                for reason in made
            ],
        }
    ]


def picked(*select: str, gpu: str = "RTX 4090", driver: str = "570") -> Picked:
    return targets.best(PROJECT, select, gpu, driver, python="", torch="", here=False)


def test_what_was_picked(printed: Printed) -> None:
    found = picked()
    assert found.next
    targets_.picked(found, "json")
    row = json.loads(printed())
    assert row["id"] == found.best.candidate.id
    assert row["tag"] == found.best.candidate.target().tag
    assert row["verdict"] in ("ok", "warn")
    assert row["next"] == found.next.candidate.id
    assert row["because"] == found.because
    assert row["fitting"] == found.fitting > 10
    assert row["driver_floor"] == "525.60.13"
    assert row["flash_attn"] == found.best.candidate.target().promise["flash_attn"]
    assert len(row["reasons"]) == len(found.best.found.reasons)
    targets_.picked(found, "text")
    lines = printed().splitlines()
    assert lines[0] == found.best.candidate.id
    assert lines[-1] == f"  {found.fitting} targets work on this machine"
    assert "  needs driver 525.60.13 or newer" in lines
    assert "flash-attn has only" not in " ".join(lines), "it holds everything"
    assert f"chosen over {found.next.candidate.id} because it is smaller (" in " ".join(lines)


def test_one_that_is_alone_is_not_before_another(printed: Printed) -> None:
    found = picked(picked().best.candidate.id)
    targets_.picked(found, "json")
    row = json.loads(printed())
    assert row["next"] is None
    assert row["because"] == "no other target works there"
    targets_.picked(found, "text")
    text = printed()
    assert "chosen over" not in text
    assert text.splitlines()[-1] == "  1 target works on this machine"


def test_kernels_that_are_not_there_are_told(printed: Printed) -> None:
    found = picked(DEMO.id, gpu="RTX 3090", driver="580")
    assert found.best.candidate.id == DEMO.id
    kernels = found.best.candidate.selection
    targets_.picked(found, "text")
    text = " ".join(printed().split())
    dims, types = ", ".join(map(str, kernels.head_dims)), ", ".join(kernels.dtypes)
    assert (
        f"note: flash-attn has only the kernels for head dimensions {dims} in {types}, "
        "for architectures 80 needs driver 580.65.06 or newer"
    ) in text


def test_a_warning_that_the_picked_one_avoids_is_told(printed: Printed) -> None:
    """Only the image of NVIDIA's refuses to start on that card with that driver."""
    found = picked("*cuda13.2-torch2.15-py3.12-*", driver="580.65.06")
    assert found.because.startswith("of that one is to be known: ")
    targets_.picked(found, "text")
    text = " ".join(printed().split())
    assert found.next
    start = f"chosen over {found.next.candidate.id} because it avoids a warning: nvidia/cuda:13.2."
    assert start in text
    targets_.picked(picked(DEMO.id, gpu="RTX 3090", driver="580"), "text")
    assert "avoids" not in printed()


def test_what_is_to_know_of_the_picked_one(printed: Printed) -> None:
    found = picked("*cuda13.2-torch2.15*", driver="580")
    assert found.best.found.verdict == "warn"
    targets_.picked(found, "text")
    text = printed()
    assert "note (driver-minor): " in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_locks(printed: Printed) -> None:
    files.locks([Path("locks/a"), Path("locks/b")], "text")
    assert printed() == "2 locks: complete, hashed, and made for this matrix\n"
    files.locks([Path("locks/a")], "json")
    assert json.loads(printed()) == ["locks/a"]


def test_images_that_were_built(printed: Printed) -> None:
    fresh, old = values.built(), values.built(cached="already built")
    images.built([fresh, old], "text")
    lines = printed().splitlines()
    assert lines[0] == f"{DEMO.id}: built in 61 s"
    assert lines[2] == f"  {DIGEST}, 7.00 GB unpacked"
    assert lines[3] == f"{DEMO.id}: already built"
    images.built([fresh], "json")
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


def test_images_that_were_pushed(printed: Printed) -> None:
    one = values.pushed()
    one = replace(one, aliases=("x/y:latest",), kept=("torch2.11 stays: it is newer",))
    failed = {"that": RegistryError("broken pipe")}
    done = PushResult(pushed=(one,), failed=failed)
    images.published(done, "text")
    assert printed().splitlines() == [
        f"{DEMO.id}: {DIGEST}",
        *(f"  docker pull {ref}" for ref in one.refs),
        "  docker pull x/y:latest",
        "  torch2.11 stays: it is newer",
        "  2.85 GB to pull in 2 layers, 7.00 GB unpacked",
    ]
    images.published(done, "json")
    found = json.loads(printed())
    assert found["failed"] == [{"name": "that", "error": "broken pipe"}]
    (row,) = found["pushed"]
    assert row["pinned"] == one.pinned
    assert {check["status"] for check in row["checks"]} == {"pass", "skip"}
    assert row["compressed_bytes"] == sum(layer["bytes"] for layer in row["layers"])
    assert row["refs"] == list(one.refs)


def a_demo() -> Demo:
    steps = (("engine", 0.1, "an engine already runs"), ("build", 59.9, ""))
    pushed = values.pushed()
    return Demo(
        steps=steps,
        pushed=pushed,
        templates={
            name: platform.template(pushed, FACTS, Wish()) for name, platform in PLATFORMS.items()
        },
        ref="imagegen/built:x",
        undo=("docker rm -f x",),
    )


def test_the_demo(printed: Printed) -> None:
    made = a_demo()
    machine.demo(made, "text")
    text = printed()
    assert f"tested and pushed: {made.pushed.pinned}" in text
    assert f"imagegen push {DEMO.id} --base bootstrap --repository" in text
    assert "total   60.0" in text
    assert "to undo all of it:\n  docker rm -f x" in text
    assert "850.0 MB  /build/pip-install x" in text
    machine.demo(made, "json")
    row = json.loads(printed())
    assert row["templates"] == json.loads(json.dumps(made.templates))
    assert row["steps"][1] == {"step": "build", "seconds": 59.9, "why": ""}
    assert row["undo"] == ["docker rm -f x"]
    assert row["pinned"] == made.pushed.pinned


def test_the_largest_layers_come_first() -> None:
    layers = [Layer(digest=str(i), compressed=i, created_by="") for i in range(9)]
    assert [size for size, _ in images.largest(layers)] == ["8 B", "7 B", "6 B", "5 B", "4 B"]


def test_what_doctor_saw_and_did(printed: Printed) -> None:
    found = [
        Finding(name="engine", ok=False, detail="none", fix="install it"),
        Finding(name="disk", ok=True, detail="100 GB", fix=""),
    ]
    machine.findings(found, "text")
    lines = printed().splitlines()
    assert lines[1].split() == ["MISSING", "engine", "none", "install", "it"]
    assert lines[2].split()[0] == "ok"
    machine.findings(found, "json")
    assert [row["ok"] for row in json.loads(printed())] == [False, True]
    done = Fixed(did=("installed it",), undo=("remove it",))
    machine.fixed(done, "text")
    assert printed() == "installed it\nto undo:\n  remove it\n"
    machine.fixed(done, "json")
    assert json.loads(printed()) == {"did": ["installed it"], "undo": ["remove it"]}
    machine.fixed(Fixed(did=(), undo=()), "text")
    assert printed() == "nothing to do\n"
