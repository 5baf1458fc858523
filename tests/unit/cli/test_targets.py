"""The commands that ask, from the command line on: list, pick, lock --check; and whose facts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from imagegen.build import images
from imagegen.build.options import Options
from imagegen.commands import files
from imagegen.commands.targets import described
from imagegen.matrix import pick, project, resolve
from imagegen.plan.pins import lock_name, unlocked
from tests.support.values import DEMO, FACTS, FILE, PROJECT, RESOLUTION

IDS = [target.id for target in RESOLUTION.targets]
LOCKED = [combination for combination in RESOLUTION.combinations if resolve.lockable(combination)]


class Shell:
    """``imagegen WORDS``: its status, and what it printed on both streams."""

    def __init__(self, line: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.line, self.capsys = line, capsys

    def __call__(self, *words: str, status: int = 0) -> str:
        """The output; for a failure, the message."""
        found = self.line(*words)
        out, err = self.capsys.readouterr()
        assert found == status, err or out
        assert not (err if status == 0 else out)
        return out if status == 0 else err

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--format", "json"))


@pytest.fixture
def imagegen(line: Any, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(line, capsys)


def workspace(folder: Path, old: str = "", new: str = "") -> Path:
    """A copy of the committed matrix and its locks, changed; its matrix."""
    copy = folder / "dockerfiles"
    shutil.copytree(PROJECT.locks, copy / "locks")
    text = FILE.read_text()
    assert old in text
    (copy / "matrix.toml").write_text(text.replace(old, new, 1))
    return copy / "matrix.toml"


# --- list -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "driver"),
    [("RTX 4090", "570"), ("H100", ""), ("", "570"), ("H100", "580.65.06"), ("B200", "")],
)
def test_list_on_a_machine_is_a_part_of_the_list(imagegen: Shell, gpu: str, driver: str) -> None:
    words = [*(["--gpu", gpu] if gpu else []), *(["--driver", driver] if driver else [])]
    found = imagegen.json("list", *words)
    fits = pick.fitting(RESOLUTION.combinations, described(FACTS, gpu, driver))
    wanted = {fit.candidate.id for fit in fits}
    assert [row["id"] for row in found] == [id_ for id_ in IDS if id_ in wanted]
    assert 0 < len(found) < len(IDS)
    if driver.startswith("570"):
        assert all(row["cuda"].startswith("12.") for row in found)
    lines = imagegen("list", *words).splitlines()
    assert [text.split()[0] for text in lines[1:]] == [row["id"] for row in found]


def test_list_on_a_machine_says_what_is_to_know_there(imagegen: Shell) -> None:
    rows = imagegen.json("list", "*cuda12.9-*-devel", "--gpu", "RTX 4090", "--driver", "570")
    assert rows
    for row in rows:
        assert {"driver-minor", "container-gate"} <= {r["code"] for r in row["reasons"]}
    plain = imagegen.json("list", "*cuda12.9-*-devel")
    assert not any(row["reasons"] for row in plain)


def test_list_on_a_machine_takes_globs_too(imagegen: Shell) -> None:
    found = imagegen.json("list", "*torch2.9*", "--driver", "570")
    assert found
    assert all("torch2.9" in row["id"] and "cuda12" in row["id"] for row in found)
    err = imagegen("list", "nothing*", "--driver", "570", status=4)
    assert "no target matches 'nothing*'" in err


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        (("--gpu", "V100"), ["flash-attn-gpu"]),
        (("--driver", "470"), ["driver"]),
        (("*cuda13.0*", "--driver", "570"), ["driver"]),
    ],
)
def test_list_on_a_machine_that_nothing_works_on_is_4(
    imagegen: Shell, words: tuple[str, ...], codes: list[str]
) -> None:
    err = imagegen("list", *words, status=4)
    assert err.startswith("error: no target works on ")
    assert any(f"  {code}: " in err for code in codes)
    assert "The closest, " in err


def test_list_with_a_card_that_no_fact_knows(imagegen: Shell) -> None:
    err = imagegen("list", "--gpu", "RTX 4091", status=3)
    assert "'RTX 4090'" in err
    assert "--driver x: not a driver's version" in imagegen("list", "--driver", "x", status=2)


def test_list_says_aliases_locks_and_reasons(imagegen: Shell) -> None:
    rows = {row["id"]: row for row in imagegen.json("list")}
    assert list(rows) == IDS
    found = {alias: id_ for id_, row in rows.items() for alias in row["aliases"]}
    assert found == PROJECT.aliases
    for combination in RESOLUTION.combinations:
        row = rows[combination.id]
        assert row["unlocked"] == list(unlocked(combination, PROJECT))
        assert [reason["code"] for reason in row["reasons"]] == [
            r.code for r in combination.reasons
        ]
        assert ("torch" in row["unlocked"]) == (not resolve.lockable(combination))
        base = combination.base or combination.os
        assert ("base" in row["unlocked"]) == (not base.digest)
    assert any(row["unlocked"] == [] for row in rows.values())
    assert any(row["unlocked"] for row in rows.values())


def test_the_columns_of_the_list(imagegen: Shell) -> None:
    head, *lines = imagegen("list").splitlines()
    at, end = head.index("UNLOCKED"), head.index("NOTES")
    said = dict(zip(IDS, (text[at:end].strip() for text in lines), strict=True))
    for combination in RESOLUTION.combinations:
        missing = unlocked(combination, PROJECT)
        assert said[combination.id] == (", ".join(missing) or "none")
    assert {"none", "torch", "base, torch"} <= set(said.values())


def test_a_lock_that_is_not_there_is_seen(imagegen: Shell, tmp_path: Path) -> None:
    file = workspace(tmp_path)
    combination = next(
        combination for combination in LOCKED if (combination.base or combination.os).digest
    )
    name = lock_name(
        combination.torch.version, combination.cuda.version, combination.python.version
    )
    (row,) = imagegen.json("list", combination.id, "--matrix", str(file))
    assert row["unlocked"] == []
    shutil.rmtree(file.parent / "locks" / name)
    (row,) = imagegen.json("list", combination.id, "--matrix", str(file))
    assert row["unlocked"] == ["torch"]


# --- list --excluded ------------------------------------------------------------------------------


def test_what_is_left_out_has_every_reason(imagegen: Shell) -> None:
    rows = imagegen.json("list", "--excluded")
    assert [row["id"] for row in rows] == [row.id for row in RESOLUTION.left_out]
    for row, combination in zip(rows, RESOLUTION.left_out, strict=True):
        assert [reason["code"] for reason in row["reasons"]] == [
            r.code for r in combination.reasons
        ]
        assert (row["reason"], row["source"]) == (combination.reason, combination.source)
        for reason in row["reasons"]:
            assert set(reason) == {"code", "severity", "stage", "text", "source"}
            assert all(reason.values())
    assert max(len(row["reasons"]) for row in rows) > 1
    assert not {row["id"] for row in rows} & set(IDS)


def test_what_is_left_out_can_be_selected(imagegen: Shell) -> None:
    glob = "ubuntu24.04-cuda13.0-torch2.6-*"
    rows = imagegen.json("list", "--excluded", glob)
    assert [row["id"] for row in rows] == [
        row.id for row in RESOLUTION.left_out if row.matches([glob])
    ]
    assert len(rows) == 2
    assert {row["reasons"][0]["code"] for row in rows} == {"torch-cuda"}
    text = imagegen("list", "--excluded", glob)
    assert text.splitlines()[0].split() == ["LEFT", "OUT", "RULE", "WHY", "SOURCE"]
    assert rows[0]["reason"] in text
    more = imagegen.json("list", "--excluded", glob, "*torch2.7*")
    assert len(more) > len(rows)


def test_a_target_is_not_left_out(imagegen: Shell) -> None:
    err = imagegen("list", "--excluded", DEMO.id, status=4)
    assert f"nothing that matches {DEMO.id} is left out" in err


@pytest.mark.parametrize(
    "words",
    [("--gpu", "H100"), ("--driver", "570"), ("--format", "github")],
    ids=lambda words: words[0],
)
def test_what_is_left_out_is_so_on_every_machine(imagegen: Shell, words: tuple[str, ...]) -> None:
    err = imagegen("list", "--excluded", *words, status=2)
    assert (
        err
        == "error: --excluded is about every machine, as text or JSON: leave --gpu, --driver out\n"
    )


# --- pick -----------------------------------------------------------------------------------------


def test_pick(imagegen: Shell) -> None:
    words = ("pick", "--gpu", "RTX 4090", "--driver", "570.124.06")
    best = pick.pick(RESOLUTION.combinations, described(FACTS, "RTX 4090", "570.124.06"))
    assert best.next
    assert imagegen.json(*words) == {
        "id": best.best.candidate.id,
        "tag": best.best.candidate.target().tag,
        "verdict": best.best.found.verdict,
        "reasons": [
            {
                name: getattr(reason, name)
                for name in ("code", "severity", "stage", "text", "source")
            }
            for reason in best.best.found.reasons
        ],
        "driver_floor": "525.60.13",
        "flash_attn": best.best.candidate.target().promise["flash_attn"],
        "next": best.next.candidate.id,
        "because": best.because,
        "fitting": best.fitting,
    }
    assert imagegen(*words).splitlines()[0] == best.best.candidate.id


def test_pick_takes_globs_a_python_and_a_torch(imagegen: Shell) -> None:
    words = ("pick", "--gpu", "H100", "--driver", "580")
    found = imagegen.json(*words, "*-devel", "--python", "3.10", "--torch", "2.9")
    assert found["id"].startswith("ubuntu22.04-")
    assert "-torch2.9-py3.10-devel" in found["id"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ((), 2, "pick needs a machine"),
        (("--gpu", "V100"), 4, "no target works on V100. The closest, "),
        (("--gpu", "H100", "--from-nvidia-smi"), 2, "give it or them"),
        (("--gpu", "H100", "--torch", "2.4"), 4, "no target with torch 2.4 in this project"),
        (("--gpu", "H100", "--python", "x"), 2, "--python: 'x' is not a Python"),
        (("--gpu", "4091"), 3, "no fact about a GPU '4091'"),
        (("nothing", "--gpu", "H100"), 4, "no target matches 'nothing'"),
    ],
)
def test_pick_that_fails(
    imagegen: Shell, words: tuple[str, ...], status: int, message: str
) -> None:
    assert message in imagegen("pick", *words, status=status)


# --- lock --check ---------------------------------------------------------------------------------


def lock_of(file: Path) -> Path:
    return file.parent / "locks" / lock_name(DEMO.torch, DEMO.cuda, DEMO.python)


def test_good_locks_are_good(imagegen: Shell, tmp_path: Path) -> None:
    file = workspace(tmp_path)
    before = {path: path.read_bytes() for path in file.parent.rglob("*") if path.is_file()}
    names = {
        lock_name(combination.torch.version, combination.cuda.version, combination.python.version)
        for combination in LOCKED
    }
    words = ("lock", "--check", "--matrix", str(file))
    assert {Path(path).name for path in imagegen.json(*words)} == names
    assert imagegen(*words) == f"{len(names)} locks: complete, hashed, and made for this matrix\n"
    assert imagegen.json(*words, "*-demo", "*cuda12.9*")[0] == str(lock_of(file))
    assert {path: path.read_bytes() for path in file.parent.rglob("*") if path.is_file()} == before


def _edit(part: str, add: str) -> Any:
    def edit(folder: Path) -> None:
        file = folder / f"{part}.txt"
        file.write_text(file.read_text() + add)

    return edit


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "cuda.txt").unlink(), "{}/cuda.txt: missing"),
        (_edit("apps", "zzz==1.0\n"), "{}/apps.txt: zzz has no hash"),
        (
            _edit("torch", "--index-url https://pypi.example.com/simple\n"),
            "{}/torch.txt: names a place: --index-url https://pypi.example.com/simple",
        ),
        (shutil.rmtree, "{}: there is no such lock"),
    ],
    ids=["missing", "hash", "url", "none"],
)
def test_a_bad_lock_is_10_and_says_what_is_bad(
    imagegen: Shell, tmp_path: Path, break_it: Any, message: str
) -> None:
    file = workspace(tmp_path)
    break_it(lock_of(file))
    err = imagegen("lock", "--check", "--matrix", str(file), status=10)
    assert err == f"error: {message.format(lock_of(file))}\n  hint: imagegen lock\n"
    others = "ubuntu24.04-*"
    assert imagegen("lock", "--check", "--matrix", str(file), others)


def test_a_lock_for_other_packages_is_10(imagegen: Shell, tmp_path: Path) -> None:
    file = workspace(tmp_path, 'packages = ["accelerate"', 'packages = ["peft", "accelerate"')
    err = imagegen("lock", "--check", "--matrix", str(file), status=10)
    lines = err.removeprefix("error: ").splitlines()[:-1]
    assert len(lines) == len(list((file.parent / "locks").iterdir()))
    assert all(text.endswith("and the matrix differ in peft") for text in lines)


def test_every_fault_of_every_lock_is_told(imagegen: Shell, tmp_path: Path) -> None:
    file = workspace(tmp_path)
    folders = sorted((file.parent / "locks").iterdir())[:3]
    for folder in folders:
        (folder / "apps.txt").unlink()
    err = imagegen("lock", "--check", "--matrix", str(file), status=10)
    for folder in folders:
        assert f"{folder}/apps.txt: missing" in err


# --- whose facts ----------------------------------------------------------------------------------

OWN = """
[[gpu]]
name = "RTX 4090"
capability = 70
"""


def test_facts_of_ones_own_decide(
    imagegen: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.toml").write_text(OWN)
    own = ("--facts", str(tmp_path / "own.toml"))
    words = ("pick", "--gpu", "RTX 4090", "--driver", "580")
    assert imagegen(*words)
    assert "flash-attn-gpu: " in imagegen(*words, *own, status=4)
    assert "flash-attn-gpu: " in imagegen("list", "--gpu", "RTX 4090", *own, status=4)
    monkeypatch.setenv("IMAGEGEN_FACTS", str(tmp_path / "own.toml"))
    assert "flash-attn-gpu: " in imagegen(*words, status=4)
    (tmp_path / "none.toml").write_text("")
    assert imagegen(*words, "--facts", str(tmp_path / "none.toml")), "an option goes first"


def test_facts_with_a_fault_are_3(imagegen: Shell, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[[gpu]]\nname = "RTX 4090"\ncapabilty = 89\n')
    for command in (("list",), ("pick", "--gpu", "T4"), ("why",), ("lock", "--check")):
        err = imagegen(*command, "--facts", str(file), status=3)
        assert err.startswith(f"error: {file}: unknown key gpu.")
        assert "did you mean 'capability'?" in err
    err = imagegen("list", "--facts", str(tmp_path / "no.toml"), status=3)
    assert "no.toml: cannot be read" in err


# --- versions that nobody knows yet ---------------------------------------------------------------

UNKNOWN = (
    "ubuntu24.04-cuda13.2-torch2.99-py3.12-devel",
    "ubuntu24.04-cuda13.2-torch2.99-py3.12-slim",
)


def unknown(folder: Path) -> Path:
    """A workspace with torch 2.99."""
    return workspace(folder, '"2.15"]', '"2.15", "2.99"]')


def test_an_unknown_version_is_refused(imagegen: Shell, tmp_path: Path) -> None:
    file = unknown(tmp_path)
    for command in ("list", "render"):
        err = imagegen(command, "--matrix", str(file), status=3)
        message = f"error: {file}: build.0.torch: unknown value '2.99'; did you mean '2.15'?"
        assert err.splitlines()[0] == message
    assert not list(file.parent.glob("*/Dockerfile"))


def test_an_unknown_version_is_rendered_where_it_is_allowed(
    imagegen: Shell, tmp_path: Path
) -> None:
    file = unknown(tmp_path)
    words = ("--allow-unknown", "--matrix", str(file))
    imagegen("render", "*torch2.99*", *words)
    folders = {path.parent.name for path in file.parent.glob("*/Dockerfile")}
    assert set(UNKNOWN) <= folders
    assert all("torch2.99" in name for name in folders)
    for name in UNKNOWN:
        text = (file.parent / name / "Dockerfile").read_text()
        assert "torch==2.99 torchvision==" in text
        promise = json.loads((file.parent / name / "target.json").read_text())
        assert "torch 2.99 is in no fact; it is taken to be like 2.15.0" in promise["unverified"]
    rows = {row["id"]: row for row in imagegen.json("list", *words)}
    for name in UNKNOWN:
        row = rows[name]
        assert row["unverified"]
        assert "torch" in row["unlocked"]
        assert row["reasons"][0]["severity"] == "unverified"
        assert "unknown-version" in {reason["code"] for reason in row["reasons"]}
    assert rows[DEMO.id]["unverified"] == []
    assert rows[UNKNOWN[1]]["aliases"][0] == "latest", "a moving tag moves there, too"


def test_the_label_says_what_is_unverified(tmp_path: Path) -> None:
    file = unknown(tmp_path)
    loaded = project.load(file, allow_unknown=True)
    assert loaded.facts
    files.render_files(loaded, UNKNOWN, check=False)
    files.render_files(loaded, [DEMO.id], check=False)
    options = Options()
    for image in images.plan(loaded, UNKNOWN, options):
        promise = json.loads(image.labels["imagegen.target"])
        assert promise == image.target.promise
        assert "torch 2.99 is in no fact; it is taken to be like 2.15.0" in promise["unverified"]
        assert image.labels["imagegen.unverified"].startswith("torch 2.99 is in no fact")
    (known,) = images.plan(loaded, [DEMO.id], options)
    assert json.loads(known.labels["imagegen.target"])["unverified"] == []
    assert "imagegen.unverified" not in known.labels


def test_what_is_not_locked_does_not_say_that_pypi_lacks_it(tmp_path: Path) -> None:
    """torch 2.99 is taken to be like 2.15, which is on PyPI for CUDA 13.2: it has no lock yet."""
    loaded = project.load(unknown(tmp_path), allow_unknown=True)
    files.render_files(loaded, UNKNOWN, check=False)
    folder = loaded.folder / UNKNOWN[1]
    pins = json.loads((folder / "lock.json").read_text())
    why = pins["unlocked"]["torch"]
    assert why == "there is no lock of it here; imagegen lock makes one of what is on PyPI"
    assert f"# ({why}.)\n" in (folder / "Dockerfile").read_text()


@pytest.mark.parametrize(("value", "status"), [("1", 0), ("true", 0), ("0", 3), ("", 3)])
def test_the_variable_allows_it_as_well(
    imagegen: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, status: int
) -> None:
    file = unknown(tmp_path)
    monkeypatch.setenv("IMAGEGEN_ALLOW_UNKNOWN", value)
    assert imagegen("list", "--matrix", str(file), status=status)


def test_what_no_fact_confirms_is_a_target_where_it_is_allowed(imagegen: Shell) -> None:
    plain, bold = imagegen.json("list"), imagegen.json("list", "--allow-unknown")
    assert {row["id"] for row in plain} < {row["id"] for row in bold}
    more = [row for row in bold if row["id"] not in IDS]
    assert all(row["unverified"] for row in more)
    assert not any(row["unverified"] for row in plain)


def test_a_fact_of_ones_own_makes_it_known(imagegen: Shell, tmp_path: Path) -> None:
    file = unknown(tmp_path)
    own = tmp_path / "own.toml"
    own.write_text(
        """
[[torch]]
version = "2.99.0"
released = 2026-11-20
pythons = ["3.12"]
pypi_cuda = "13.2"
pypi_hosts = ["x86_64"]
torchvision = "0.99.0"
torchaudio = "2.11.0"
triton = "==4.0.0"
cxx = 20
build = [{ cuda = "13.2", hosts = ["x86_64"], abi = true, archs = [80, 90], toolkit = "13.2.2" }]
source = "measured here"
checked = 2026-11-21
[[flash_attn]]
version = "2.8.3.post2"
torch_max = "2.99"
"""
    )
    words = ("--facts", str(own), "--matrix", str(file))
    rows = {row["id"]: row for row in imagegen.json("list", "*torch2.99*", *words)}
    assert set(rows) == set(UNKNOWN)
    assert all(row["unverified"] == [] for row in rows.values())
    assert {row["torch"] for row in rows.values()} == {"2.99.0"}
    assert {row["torchvision"] for row in rows.values()} == {"0.99.0"}
