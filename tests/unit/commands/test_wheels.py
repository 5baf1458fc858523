"""Wheels for builds and apart from them: asked for, made, kept and said. The engine is none."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests

from imagegen.build import bake, images
from imagegen.build.options import Options
from imagegen.commands import files
from imagegen.commands import wheels as wheels_
from imagegen.compat import sources
from imagegen.engine.docker import Docker
from imagegen.errors import BuildError, EngineError, FactsError, UsageError, WheelError
from imagegen.image.wheel.flash_attn_wheel.selection import PRESETS, Selection
from imagegen.matrix import project
from imagegen.net import http
from imagegen.util import process
from imagegen.wheels.compile import Compilation, Wanted
from imagegen.wheels.entry import StoreEntry
from imagegen.wheels.store import open_store
from tests.support.logs import listening
from tests.support.values import DEMO, FACTS, FILE, PROJECT, RESOLUTION

PLACES = tuple(sources.NAMES.values())
ID = DEMO.id
(IT,) = RESOLUTION.select([ID])
NAME = sources.own_name(IT, wheels_.kernels(IT))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("WHEELS", "BASE", "CA"):
        monkeypatch.delenv(f"IMAGEGEN_{name}", raising=False)
    return tmp_path / "cache/imagegen"


@dataclass
class Engine:
    """Takes a bake definition, and has its images then; ``writes`` fills what it exports."""

    writes: Mapping[str, bytes] = field(default_factory=lambda: {NAME: b"compiled"})
    meanwhile: Callable[[], object] = lambda: None
    baked: list[dict[str, Any]] = field(default_factory=list)

    def local(self, ref: str) -> SimpleNamespace | None:
        for document in self.baked:
            for row in document["target"].values():
                if f"name={ref}," in row["output"][0]:
                    labels = row["labels"]
                    return SimpleNamespace(labels=labels, digest="sha256:" + "d" * 64)
        return None

    def unpacked(self, _ref: str) -> int:
        return 1

    def config(self, _ref: str) -> dict[str, int]:
        return {"Size": 1}

    def need_disk(self, needed: int) -> None:
        pass

    def bake(self, document: dict[str, Any], texts: Mapping[str, str], **_: Any) -> None:
        self.baked.append(json.loads(json.dumps(document)))
        self.texts = texts
        for row in document["target"].values():
            if row["output"][0].startswith("type=local"):
                folder = Path(row["output"][0].partition("dest=")[2])
                for name, content in self.writes.items():
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_bytes(content)
        self.meanwhile()

    @property
    def row(self) -> dict[str, Any]:
        document, *again = self.baked
        (found,) = document["target"].values()
        for other in again:  # the same once more, for its provenance
            (row,) = other["target"].values()
            assert row["attest"] == ["type=provenance,mode=max"]
            changed = {"output", "attest"}
            assert {k: v for k, v in row.items() if k not in changed} == {
                k: v for k, v in found.items() if k not in changed
            }
        return cast(dict[str, Any], found)


def docker(engine: Engine) -> Docker:
    return cast(Docker, engine)


def put(folder: Path, content: bytes = b"kept", name: str = NAME) -> StoreEntry:
    file = folder / "made" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return open_store(str(folder / "store"), make=True).put(file)


def options(folder: Path, **more: Any) -> Options:
    return Options(wheels=str(folder / "store"), **more)


def built(engine: Engine, chosen: Options, loaded: project.Project = PROJECT) -> list[str]:
    with listening() as heard:
        images.build(docker(engine), images.plan(loaded, [ID], chosen), chosen)
    return heard


def made(engine: Engine, chosen: Options, **more: Any) -> wheels_.BuiltWheel:
    (found,) = wheels_.build(PROJECT, docker(engine), [ID], chosen, **more)
    return found


@pytest.fixture
def forbidding(tmp_path: Path) -> project.Project:
    """A workspace whose matrix forbids compiling."""
    folder = tmp_path / "dockerfiles"
    folder.mkdir()
    (folder / "locks").symlink_to(FILE.parent / "locks")
    old = "[flash_attn.demo]\n"
    (folder / "matrix.toml").write_text(
        FILE.read_text().replace(old, f'{old}source = "forbidden"\n')
    )
    loaded = project.load(folder / "matrix.toml")
    files.render_files(loaded, [ID], check=False)
    return loaded


# --- images: where their flash-attn comes from ----------------------------------------------------


def test_nothing_is_left_and_nothing_is_built(tmp_path: Path) -> None:
    engine = Engine()
    (tmp_path / "store").mkdir()
    with pytest.raises(WheelError, match=f"{ID}: no source of flash-attn is left") as failed:
        built(engine, options(tmp_path, no_source=True))
    lines = str(failed.value).splitlines()[1:]
    assert [line.partition(":")[0].strip() for line in lines] == list(PLACES)
    assert f"{tmp_path / 'store'} has no {NAME}" in lines[0]
    assert "--no-source forbids it" in lines[-1]
    assert failed.value.hint.startswith(f"imagegen wheel build {ID} --wheels ")
    assert not engine.baked


def test_a_matrix_that_forbids_compiling_says_what_else_there_is(
    forbidding: project.Project,
) -> None:
    with pytest.raises(WheelError, match='source = "forbidden"') as failed:
        built(Engine(), Options(), forbidding)
    assert "--wheels LOCATION" in failed.value.hint
    assert "wheel build" not in failed.value.hint


def test_a_store_that_answers_500_is_no_reason_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def request(*_: object, **__: object) -> requests.Response:
        answer = requests.Response()
        answer.raw = io.BytesIO()
        answer.status_code, answer.reason = 500, "Internal Server Error"
        return answer

    monkeypatch.setattr(requests.Session, "request", request)
    monkeypatch.setattr(http, "PAUSES", (0.0, 0.0))
    engine = Engine()
    with pytest.raises(WheelError, match="HTTP 500 Internal Server Error"):
        built(engine, Options(wheels="https://x.example/wheels"))
    assert not engine.baked


def test_a_store_that_is_not_there_is_no_reason_to_compile(tmp_path: Path) -> None:
    engine = Engine()
    with pytest.raises(WheelError, match="is not a folder"):
        built(engine, options(tmp_path))
    assert not engine.baked


def test_an_image_with_the_stores_wheel_is_another_one(tmp_path: Path) -> None:
    first, other = put(tmp_path / "1"), put(tmp_path / "2", b"other")
    chosen = [Options(), options(tmp_path / "1"), options(tmp_path / "2")]
    found = [images.plan(PROJECT, [ID], each)[0] for each in chosen]
    hashes = [image.wheel.sha256 if image.wheel else "" for image in found]
    assert hashes == ["", first.sha256, other.sha256]
    assert len({image.key for image in found}) == len({image.ref for image in found}) == 3


def test_a_build_takes_the_wheel_from_a_folder_with_nothing_else_in_it(
    tmp_path: Path, cache: Path
) -> None:
    entry, engine = put(tmp_path), Engine()
    put(tmp_path, name=NAME.replace("sm80", "sm90"))
    heard = built(engine, options(tmp_path))
    folder = Path(engine.row["contexts"]["given"])
    assert folder == cache / "wheels" / entry.sha256
    assert [file.name for file in folder.iterdir() if not file.name.startswith(".")] == [NAME]
    assert entry.is_in(folder / NAME)
    said = [line for line in heard if line.startswith(f"{ID}: ")]
    assert [line.split(": ")[1] for line in said] == list(PLACES)
    assert f"own wheel store: {NAME} from {tmp_path / 'store'}" in said[0]
    assert said[-1].endswith("source: skipped, not needed")
    runs = len(engine.baked)
    built(engine, options(tmp_path))
    assert len(engine.baked) == runs == 2, "it was built before, image and provenance"


def test_a_source_build_says_first_what_it_costs(tmp_path: Path) -> None:
    engine = Engine()
    heard = built(engine, Options())
    assert "given" not in engine.row["contexts"]
    said = [line for line in heard if line.startswith(f"{ID}: ")]
    assert [line.split(": ")[1] for line in said[:-1]] == list(PLACES)
    assert "6 kernel files for 1 architecture: about 0.1 CPU-hours, " in said[-1]
    assert " min with " in said[-1]


def test_the_definition_that_is_printed_names_the_folder_and_fetches_nothing(
    line: Any, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = put(tmp_path)
    assert line("build", ID, "--print", "--wheels", str(tmp_path / "store")) == 0
    (row,) = json.loads(capsys.readouterr().out)["target"].values()
    assert row["contexts"]["given"] == str(cache / "wheels" / entry.sha256)
    assert not (cache / "wheels").exists()
    assert line("build", ID, "--print", "--no-source") == WheelError.exit_code == 11
    assert "no source of flash-attn is left" in capsys.readouterr().err


# --- wheels apart from images ---------------------------------------------------------------------


def test_a_wheel_is_built_once_and_put_into_the_store(tmp_path: Path) -> None:
    engine, chosen = Engine(), options(tmp_path, jobs=3)
    found = made(engine, chosen)
    assert not found.found
    assert (tmp_path / "store" / NAME).read_bytes() == b"compiled"
    assert engine.row["target"] == "wheel"
    assert "FLASH_ATTN_SHARD" not in engine.row["args"]
    assert "given" not in engine.row["contexts"]
    assert engine.texts == bake.environment({"jobs": "3"})
    again = made(engine, chosen)
    assert again.entry == found.entry
    assert "has it already" in again.found
    assert len(engine.baked) == 1


def test_what_the_store_has_is_replaced_on_demand_only(tmp_path: Path) -> None:
    old, engine = put(tmp_path), Engine()
    assert made(engine, options(tmp_path)).entry == old
    assert not engine.baked
    assert made(engine, options(tmp_path), force=True).entry != old
    assert (tmp_path / "store" / NAME).read_bytes() == b"compiled"
    assert "given" not in engine.row["contexts"], "the store's wheel is not made from itself"


def test_what_another_machine_put_there_meanwhile_stays(tmp_path: Path) -> None:
    engine = Engine(meanwhile=lambda: put(tmp_path, b"theirs"))
    found = made(engine, options(tmp_path))
    assert "another build has put it" in found.found
    assert found.entry.is_in(tmp_path / "store" / NAME)
    assert (tmp_path / "store" / NAME).read_bytes() == b"theirs"


def test_a_wheel_of_another_name_never_gets_into_the_store(tmp_path: Path) -> None:
    other = NAME.replace("sm80", "sm90")
    with pytest.raises(BuildError, match=f"made {other.replace('+', '.')}, expected"):
        made(Engine({other: b"x"}), options(tmp_path))
    assert not list((tmp_path / "store").glob("*.whl*"))


def test_shards_that_were_brought_together_are_given_to_the_link(tmp_path: Path) -> None:
    engine = Engine()
    with pytest.raises(UsageError, match="together holds nothing that shards compiled"):
        made(engine, options(tmp_path), prebuilt=tmp_path / "together")
    assert not engine.baked, "or all would be compiled"
    (tmp_path / "together/objects/key").mkdir(parents=True)
    (tmp_path / "together/objects/key/a.o").touch()
    made(engine, options(tmp_path), prebuilt=tmp_path / "together")
    assert engine.row["contexts"]["given"] == str(tmp_path / "together")


def test_a_shard_leaves_its_objects(tmp_path: Path) -> None:
    engine = Engine({"objects/key/a.o": b"a", "objects/key/a.json": b"{}"})
    found = wheels_.build_shard(PROJECT, docker(engine), [ID], Options(), "2/4", tmp_path / "to")
    assert found == (tmp_path / "to/objects/key/a.o",)
    assert engine.row["args"]["FLASH_ATTN_SHARD"] == "2/4"


def test_what_is_asked_for_must_make_sense(tmp_path: Path, forbidding: project.Project) -> None:
    engine = Engine()
    with pytest.raises(UsageError, match="no wheel store is named"):
        made(engine, Options())
    with pytest.raises(UsageError, match="no selected target has flash-attn 2"):
        wheels_.build(PROJECT, docker(engine), ["*-plain"], options(tmp_path))
    with pytest.raises(UsageError, match="a shard is of one target"):
        wheels_.build_shard(PROJECT, docker(engine), ["debian*"], Options(), "1/2", tmp_path)
    with pytest.raises(UsageError, match="6 kernel files cannot make 7 shards"):
        wheels_.cut(PROJECT, [ID], 7)
    for shard in ("", "2", "0/2", "3/2", "a/b", "1/7", "02/4", "-1/2"):
        with pytest.raises(UsageError, match=r"not a shard such as 2/4|cannot make 7"):
            wheels_.build_shard(PROJECT, docker(engine), [ID], Options(), shard, tmp_path)
    with pytest.raises(WheelError, match="its Dockerfile does not compile flash-attn"):
        wheels_.build(forbidding, docker(engine), [ID], options(tmp_path))
    with pytest.raises(WheelError, match="its Dockerfile does not compile flash-attn"):
        wheels_.build_shard(forbidding, docker(engine), [ID], Options(), "1/2", tmp_path)
    assert not engine.baked


def test_fetching_takes_what_the_store_has_and_says_what_it_has_not(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(WheelError, match="has no flash_attn-") as failed:
        wheels_.fetch(PROJECT, [ID], options(tmp_path), tmp_path / "to")
    assert failed.value.hint == f"imagegen wheel build {ID} --wheels {tmp_path / 'store'}"
    entry = put(tmp_path)
    (found,) = wheels_.fetch(PROJECT, [ID], options(tmp_path), tmp_path / "to")
    assert found == tmp_path / "to" / NAME
    assert entry.is_in(found)


def test_what_nobody_published_cannot_be_fetched(tmp_path: Path) -> None:
    def fetch(origin: str) -> None:
        wheels_.fetch_published(PROJECT, [ID], origin, Options(), tmp_path)

    with pytest.raises(UsageError, match="--from source: official or third-party"):
        fetch("source")
    with pytest.raises(WheelError, match=f"{ID}: no official wheel fits it that the facts know"):
        fetch("official")


def test_what_is_pushed_is_looked_through_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def verify(wheel: Path, *, level: str) -> dict[str, object]:
        assert level == "contents"
        seen.append(wheel)
        if wheel.read_bytes() == b"bad":
            raise WheelError("bad")
        return {}

    monkeypatch.setattr(wheels_, "verify", verify)
    wheels = [tmp_path / NAME, tmp_path / NAME.replace("sm80", "sm90")]
    for wheel, content in zip(wheels, (b"good", b"bad"), strict=True):
        wheel.write_bytes(content)
    with pytest.raises(WheelError):
        wheels_.push(wheels, options(tmp_path), force=False)
    assert seen == wheels
    assert not list((tmp_path / "store").glob("*.whl"))
    (entry,) = wheels_.push(wheels[:1], options(tmp_path), force=False)
    assert entry.is_in(tmp_path / "store" / NAME)


# --- on this machine ------------------------------------------------------------------------------


def smi(monkeypatch: pytest.MonkeyPatch, *cards: str) -> None:
    """Has nvidia-smi name these cards, each with its compute capability."""
    rows = [
        f"{name}, 570.124.06, {capability}, 81559" for name, capability in map(str.split, cards)
    ]

    def run(*_: object, **__: object) -> str:
        if not cards:
            raise EngineError("nvidia-smi is not installed")
        return "\n".join(rows)

    monkeypatch.setattr(process, "run", run)


def test_what_is_built_here_is_for_the_cards_here(monkeypatch: pytest.MonkeyPatch) -> None:
    smi(monkeypatch, "X 9.0", "Y 8.6", "Z 7.0")
    assert Wanted(preset="llama").selection(FACTS) == Selection((80, 90), **PRESETS["llama"])  # type: ignore[arg-type]
    assert Wanted(archs="100", dtypes="bf16", features="").selection(FACTS) == Selection(
        (100,), dtypes=("bf16",), features=()
    )


@pytest.mark.parametrize(
    ("cards", "wanted", "said"),
    [
        ((), Wanted(), "which GPU?.*nvidia-smi is not installed"),
        (("V100 7.0",), Wanted(), r"flash-attn 2\.8\S* has no kernels for V100"),
        (("X 9.0",), Wanted(preset="lama"), "--preset lama: full, llama, gpt2, inference"),
        (("X 9.0",), Wanted(head_dims="65"), r"head_dims: \[65\] not in"),
        (("X 9.0",), Wanted(archs="8.0"), "8.0"),
    ],
    ids=["no card", "an old card", "preset", "head_dims", "archs"],
)
def test_what_cannot_be_built_here_says_why(
    monkeypatch: pytest.MonkeyPatch, cards: tuple[str, ...], wanted: Wanted, said: str
) -> None:
    smi(monkeypatch, *cards)
    with pytest.raises(UsageError, match=said):
        wanted.selection(FACTS)


def test_a_release_that_nobody_knows_cannot_be_built() -> None:
    with pytest.raises(FactsError, match=r"no fact about flash-attn '2\.9'"):
        Wanted(version="2.9").release(FACTS)
    assert str(Wanted(version="2.8.3").release(FACTS).version) == "2.8.3"
    assert str(Wanted().release(FACTS).version) == "2.8.3.post2"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for the recipe, and for an interpreter that has torch; the words it got."""
    calls: list[list[str]] = []

    def stream(*words: object, on_line: Any, **_: object) -> tuple[int, list[str]]:
        calls.append([str(word) for word in words][3:])
        on_line(f"{calls[-1][0]} is at work")
        found: dict[str, object] = {"objects": 2, "folder": "key", "seconds": 1.0}
        if calls[-1][0] == "verify":
            found = {}
        elif "--shard" not in calls[-1]:
            folder = Path(calls[-1][calls[-1].index("--out") + 1])
            folder.mkdir(exist_ok=True)
            (folder / NAME).write_bytes(b"compiled")
            found = {"wheel": NAME, "seconds": 1.0}
        return 0, [json.dumps(found)]

    monkeypatch.setattr(process, "run", lambda *_, **__: "")
    monkeypatch.setattr(process, "stream", stream)
    monkeypatch.setattr(wheels_, "verify", lambda *_, **__: {})
    monkeypatch.setenv("IMAGEGEN_WHEELS", str(tmp_path / "store"))
    return calls


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_compiling_here_runs_the_recipe_and_verifies_what_it_made(
    recipe: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], line: Any
) -> None:
    sdist, to = tmp_path / "flash_attn-2.8.3.tar.gz", tmp_path / "to"
    words = ("wheel", "compile", "--archs", "90", "--preset", "llama", "--sdist", str(sdist))
    more = ("--to", str(to), "--work", str(tmp_path / "work"), "--jobs", "3")
    assert line(*words, *more) == 0
    out, err = capsys.readouterr()
    assert out == f"{to / NAME}\n  built in 1.0 s\n"
    assert "build is at work" in err
    assert "verify is at work" not in err
    build, verify = recipe
    assert build[:2] == ["build", str(sdist)]
    assert [
        after(build, f"--{name}") for name in ("out", "work", "archs", "head-dims", "jobs")
    ] == [
        *(str(to), str(tmp_path / "work"), "90", "128", "3"),
    ]
    assert not {"--shard", "--given"} & {*build}
    assert verify[:2] == ["verify", str(to / NAME)]
    assert StoreEntry.of(to / NAME).is_in(to / NAME)
    assert not (tmp_path / "store").exists(), "a variable of the environment is no wish"
    assert line(*words, *more, "--wheels", str(tmp_path / "store")) == 0
    assert (tmp_path / "store" / NAME).read_bytes() == b"compiled"


def test_compiling_a_shard_here_leaves_objects_and_links_those_of_others(
    line: Any,
    recipe: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("wheel", "compile", "--archs", "90", "--sdist", "x.tar.gz")
    assert line(*words, "--shard", "2/4") == 0
    assert capsys.readouterr().out == "2 objects in shards/objects/key\n"
    assert after(recipe[-1], "--shard") == "2/4"
    assert line(*words, "--from", "shards") == 0
    build, _verify = recipe[1:]
    assert after(build, "--given") == str(tmp_path / "shards")
    assert "--no-compile" in build
    assert after(build, "--out") == str(tmp_path / "wheels")
    assert line(*words, "--shard", "5/4") == 2
    assert "--shard: '5/4' is not a shard such as 2/4" in capsys.readouterr().err


def test_where_a_compilation_leaves_its_files() -> None:
    plain = Compilation(wanted=Wanted(), work=Path("build"))
    assert plain.folder == Path("wheels")
    assert replace(plain, shard="1/2").folder == Path("shards")
    assert replace(plain, shard="1/2", to=Path("x")).folder == Path("x")


@pytest.mark.parametrize(
    "words",
    [
        ("build", ID, "--preset", "gpt2"),
        ("build", ID, "--archs", "90", "--wheels", "./w"),
        ("compile", ID),
        ("compile", "--force"),
    ],
)
def test_an_option_of_the_other_command_is_refused(words: tuple[str, ...], line: Any) -> None:
    """Rather than to compile something else than was asked for, for hours."""
    assert line("wheel", *words) == 2


# --- as it is typed -------------------------------------------------------------------------------


def test_the_list_names_every_place_of_every_target(
    line: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = put(tmp_path)
    words = ("wheel", "list", "debian1*-demo", "--wheels", str(tmp_path / "store"))
    assert line(*words) == 0
    said = capsys.readouterr().out
    assert f"{ID}: from store\n  {NAME}\n    -> own wheel store: {NAME} from " in said
    assert "-demo: from source\n" in said
    assert "plain" not in said and "fa4" not in said
    assert line(*words, "--format", "json") == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[ID]["from"] == "store"
    assert rows[ID]["held"] == {"name": NAME, "sha256": entry.sha256, "bytes": entry.size}
    (other,) = [row for id_, row in rows.items() if id_ != ID]
    assert (other["from"], other["held"], other["url"]) == ("source", None, None)
    for row in rows.values():
        assert [step["place"] for step in row["places"]] == list(sources.NAMES)
        assert all(step["why"] for step in row["places"])


def test_the_list_shows_also_what_no_place_has(
    line: Any, forbidding: project.Project, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(forbidding.folder / "matrix.toml")
    assert line("wheel", "list", ID, "--matrix", file) == 0
    assert f"{ID}: not available" in capsys.readouterr().out


def test_the_plan_holds_every_kernel_once(line: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert line("wheel", "plan", ID, "--shards", "4", "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["1/4", "2/4", "3/4", "4/4"]
    every = [kernel for row in rows for kernel in row["kernels"]]
    assert sorted(every) == sorted(wheels_.kernels(IT).kernels)
    assert max(row["seconds"] for row in rows) < 2.5 * min(row["seconds"] for row in rows)
    assert line("wheel", "plan", ID, "--shards", "2", "--format", "github") == 0
    matrix = json.loads(capsys.readouterr().out)
    assert matrix == {"include": [{"id": ID, "shard": "1/2"}, {"id": ID, "shard": "2/2"}]}
    assert line("wheel", "plan", ID, "--shards", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["TARGET", "SHARD", "FILES", "CPU-MINUTES"]
    assert [row.split()[:3] for row in lines[1:]] == [[ID, "1/2", "3"], [ID, "2/2", "3"]]
    assert line("wheel", "plan", ID, "--shards", "7") == UsageError.exit_code
