"""The command line: what it offers, how light it starts, how it ends."""

from __future__ import annotations

import errno
import importlib
import json
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import imagegen
from imagegen import __main__, __version__, errors
from imagegen.cli import app
from imagegen.commands import prune
from imagegen.errors import ImagegenError
from imagegen.matrix import project
from tests.support.laws import for_all
from tests.support.values import FILE, PROJECT, RESOLUTION, ROOT

NETWORK = ("--base", "--fresh-base", "--ca", "--pypi-index", "--torch-index", "--apt-mirror")
FETCH = tuple(option for option in NETWORK if option != "--fresh-base")
WHERE = ("--matrix", "--facts", "--allow-unknown")
WHEELS = ("--wheels", "--no-source", "--jobs")
BUILD = (
    *("--builder", "--registry", "--repository", "--compression", "--force", "--format"),
    *(*WHERE, *NETWORK, *WHEELS),
)
MACHINE = ("--gpu", "--driver")
TEMPLATE = (
    *("--apply", "--plan", "--public", "--name-prefix", "--ledger", "--format"),
    *("--base", "--repository", "--wheels", "--compression", "--ca"),
)
OPTIONS = {
    "list": ("--excluded", "--format", *MACHINE, *WHERE),
    "why": (
        *("--ubuntu", "--debian", "--cuda", "--torch", "--torch-index", "--python"),
        *("--flash-attn", "--flash-attn-from", "--arch", "--memory", "--wheels", "--ca", *MACHINE),
        *("--facts", "--allow-unknown", "--format"),
    ),
    "pick": ("--python", "--torch", "--from-nvidia-smi", "--format", *MACHINE, *WHERE),
    "render": ("--check", "--format", *WHERE),
    "lock": ("--check", "--ca", "--pypi-index", "--format", *WHERE),
    "build": ("--print", "--keep-going", *BUILD),
    "test": ("--image", "--level", "--require", "--report", "--again", "--keep-going", *BUILD),
    "push": ("--require", "--again", "--move-back", *BUILD),
    "inspect": ("--show", "--ca", "--format"),
    "prune": (
        *("--registry", "--apply", "--older-than", "--ledger", "--repository", "--ca"),
        *("--format", *WHERE),
    ),
    "size": (
        "--image",
        "--html",
        "--top",
        "--base",
        "--wheels",
        "--compression",
        "--format",
        *WHERE,
    ),
    "template runpod": (*TEMPLATE, "--registry-auth", *WHERE),
    "template vast": (*TEMPLATE, "--prune-old", *WHERE),
    "template table": ("--into", "--check", "--ledger", "--matrix"),
    "wheel list": ("--wheels", "--ca", "--format", *WHERE),
    "wheel plan": ("--shards", "--format", *WHERE),
    "wheel build": (
        *("--shard", "--to", "--force", "--wheels", "--jobs", "--builder", "--base"),
        *("--registry", "--format", *WHERE, *FETCH),
    ),
    "wheel compile": (
        *("--version", "--archs", "--preset", "--head-dims", "--dtypes", "--features"),
        *("--sdist", "--python", "--work", "--to", "--shard", "--from", "--jobs", "--wheels"),
        *("--ca", "--facts", "--format"),
    ),
    "wheel join": ("--from", "--force", "--wheels", "--builder", "--base", *WHERE, *FETCH),
    "wheel fetch": ("--to", "--from", "--wheels", "--ca", "--format", *WHERE),
    "wheel push": ("--wheels", "--force", "--ca", "--format"),
    "wheel verify": ("--python", "--level", "--image", "--format"),
    "doctor": ("--fix", "--dry-run", "--format"),
    "demo": ("--fresh-base", "--ca", "--pypi-index", "--apt-mirror", "--registry", *WHERE),
}
HEAVY = {"docker", "jinja2", "pydantic", "requests", "rich.console"}


def commands(command: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its words."""
    command = command or typer.main.get_command(app.app)
    for word, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{name} {word}".strip())
    if not hasattr(command, "commands"):
        yield name, command


COMMANDS = dict(commands())


def invoke(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app.app, list(words), env={"COLUMNS": "200", "NO_COLOR": "1"})
    return done.exit_code, done.output


# --- help -----------------------------------------------------------------------------------------


def test_the_commands_are_these() -> None:
    assert set(COMMANDS) == set(OPTIONS)


@for_all(OPTIONS, str)
def test_help_mentions_every_option(name: str) -> None:
    code, text = invoke(*name.split(), "--help")
    assert code == 0
    declared = {option for param in COMMANDS[name].params for option in param.opts}
    declared = {option for option in declared if option.startswith("--")}
    for option in {*declared, *OPTIONS[name]}:
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), option
    assert declared - {"--help"} >= set(OPTIONS[name])
    assert all(param.help for param in COMMANDS[name].params if param.name != "help")


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("template", "--help")])
def test_help_of_a_group_lists_its_commands(words: tuple[str, ...]) -> None:
    code, text = invoke(*words)
    assert code == 0
    for name in OPTIONS:
        if (name.split()[0] == words[0]) or words[0] != "template":
            assert name.split()[-1 if words[0] == "template" else 0] in text


def test_the_version() -> None:
    assert invoke("--version") == (0, f"imagegen {__version__}\n")


def test_an_option_that_does_not_exist_is_a_matter_of_usage(line: Any) -> None:
    assert line("build", "--nonsense") == errors.UsageError.exit_code == 2
    assert line() == 2


def test_every_command_takes_the_ledger_from_the_same_variable(
    line: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMAGEGEN_LEDGER", "/none/of/these.json")
    for words in (("prune", "--registry", "--repository", "a.example/x"), ("template", "table")):
        assert line(*words) == 2
        assert "/none/of" in capsys.readouterr().err


def test_prune_without_a_ledger_says_so(tmp_path: Path, logged: list[str]) -> None:
    assert prune._used(replace(PROJECT, folder=tmp_path), None) == set()
    assert logged == [
        f"no ledger at {tmp_path}/templates.json: no template is known to use any of these"
    ]


def test_a_check_of_the_table_needs_a_file(line: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert line("template", "table", "--check") == 2
    assert "--into" in capsys.readouterr().err


def test_the_help_says_where_vast_gets_a_login() -> None:
    text = " ".join(invoke("template", "vast", "--help")[1].split())
    assert "the image must be public, or the login be given on the instance" in text


# --- errors ---------------------------------------------------------------------------------------


def kinds(kind: type[ImagegenError] = ImagegenError) -> list[type[ImagegenError]]:
    """Every kind that imagegen defines, whichever of its modules are imported already."""
    # What is in imagegen/image runs in images; that folder is no package, so it is not walked.
    for module in pkgutil.walk_packages(imagegen.__path__, "imagegen."):
        importlib.import_module(module.name)
    return [k for k in narrower(kind) if k.__module__.startswith("imagegen.")]


def narrower(kind: type[ImagegenError]) -> Iterator[type[ImagegenError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from narrower(child)


def test_every_kind_of_failure_has_its_own_exit_status_and_the_help_names_it() -> None:
    # A narrower kind, wherever it is defined, keeps the status of the kind that it narrows.
    found = [kind for kind in kinds() if "exit_code" in vars(kind) and kind is not ImagegenError]
    assert {kind.__module__ for kind in found} == {errors.__name__}
    shared = {errors.NothingSelected, errors.ImpossibleCombination}
    assert {kind.exit_code for kind in shared} == {4}, "nothing that was asked for is there"
    codes = [kind.exit_code for kind in found if kind is not errors.ImpossibleCombination]
    assert len(codes) >= 8
    assert len(set(codes)) == len(codes)
    assert not set(codes) & {0, 1, 126, 127, 128, 130}
    _, text = invoke("--help")
    epilog = " ".join(text[text.index("Exit codes:") :].split())
    assert {int(code) for code in re.findall(r"\b(\d+) [a-z]", epilog)} == {*codes, 130}


@pytest.mark.parametrize("kind", kinds(), ids=lambda k: k.__name__)
def test_a_failure_is_a_message_a_hint_and_a_status(
    kind: type[ImagegenError],
    line: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **_options: object) -> None:
        raise kind("it broke", hint="mend it")

    monkeypatch.setattr(project, "load", fail)
    assert line("list") == kind.exit_code
    out, err = capsys.readouterr()
    assert err == "error: it broke\n  hint: mend it\n"
    assert out == ""


def test_a_failure_without_hint_has_none(
    line: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **_options: object) -> None:
        raise errors.BuildError("it broke")

    monkeypatch.setattr(project, "load", fail)
    assert line("list") == 6
    assert capsys.readouterr().err == "error: it broke\n"
    monkeypatch.setenv("IMAGEGEN_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["imagegen", "list"])
    with pytest.raises(errors.BuildError):
        __main__.main()


def test_an_interrupt_is_130_and_a_sentence(
    line: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(project, "load", interrupt)
    assert line("list") == 130
    assert capsys.readouterr().err.startswith("interrupted: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_us_is_an_interrupt(
    number: signal.Signals,
    line: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(project, "load", lambda *_, **_options: signal.raise_signal(number))
    assert line("list") == 130
    assert "interrupted" in capsys.readouterr().err


def test_nohup_is_kept(line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang_up(*values: Any, **options: Any) -> project.Project:
        signal.raise_signal(signal.SIGHUP)
        return load(*values, **options)

    load = project.load
    monkeypatch.setattr(project, "load", hang_up)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert line("list") == 0


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "/cache/base"),
        OSError(errno.ENOSPC, "No space left on device", "/cache/base"),
        NotADirectoryError(errno.ENOTDIR, "Not a directory", "/cache/base"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_file_system_that_refuses_is_one_line(
    error: OSError, line: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(project, "load", fail)
    assert line("list") == 1
    assert capsys.readouterr().err == f"error: {error}\n"
    monkeypatch.setenv("IMAGEGEN_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["imagegen", "list"])
    with pytest.raises(type(error)):
        __main__.main()


def test_a_folder_that_cannot_be_made_is_named(
    line: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = fresh(tmp_path)
    folder = file.parent / RESOLUTION.targets[0].id
    shutil.rmtree(folder)
    folder.touch()  # a file where the folder belongs; permissions would not stop root
    assert line("render", "--matrix", str(file)) == 1
    (text,) = capsys.readouterr().err.splitlines()
    assert text.startswith("error: ")
    assert str(folder) in text


# --- commands -------------------------------------------------------------------------------------


def test_list_as_text_as_json_and_for_a_workflow() -> None:
    ids = [target.id for target in RESOLUTION.targets]
    code, text = invoke("list", "--matrix", str(FILE))
    assert code == 0
    assert [row.split()[0] for row in text.splitlines()] == ["TARGET", *ids]
    rows = json.loads(invoke("list", "*-demo", "--matrix", str(FILE), "--format", "json")[1])
    assert [row["id"] for row in rows] == [id_ for id_ in ids if id_.endswith("-demo")]
    github = json.loads(invoke("list", "--matrix", str(FILE), "--format", "github")[1])
    assert github == {"include": [{"id": t.id, "tag": t.tag} for t in RESOLUTION.targets]}
    assert len(ids) <= 256, "a workflow's matrix takes no more"


def test_what_is_left_out_has_a_reason_for_each() -> None:
    words = ("list", "--excluded", "--matrix", str(FILE), "--format")
    rows = json.loads(invoke(*words, "json")[1])
    assert len(rows) == len(RESOLUTION.left_out)
    assert all(row["reason"] and row["source"] for row in rows)
    assert rows[0]["reason"] in invoke(*words, "text")[1]


def test_a_select_without_a_match_is_4(line: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert line("list", "ubuntu24.04-cuda13.0-torch2.6-*") == 4
    assert "is left out: torch 2.6.0 has no build for CUDA 13.0" in capsys.readouterr().err


def test_a_matrix_that_is_not_there_is_3(line: Any, tmp_path: Path) -> None:
    assert line("list", "--matrix", str(tmp_path / "matrix.toml")) == 3


def fresh(folder: Path) -> Path:
    """A copy of the workspace; its matrix."""
    shutil.copytree(FILE.parent, folder / "dockerfiles")
    return folder / "dockerfiles/matrix.toml"


def test_rendered_files_that_are_right_are_0_and_stale_ones_10(
    line: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("render", "--matrix", str(fresh(tmp_path)))
    assert line(*words) == 0
    assert line(*words, "--check") == 0
    assert "match the matrix" in capsys.readouterr().out
    folder = tmp_path / "dockerfiles" / RESOLUTION.targets[0].id
    before = (folder / "Dockerfile").read_text()
    (folder / "Dockerfile").write_text(before + "# by hand\n")
    folder.with_name("of-old").mkdir()
    (folder.with_name("of-old") / "Dockerfile").touch()
    assert line(*words, "--check") == 10
    err = capsys.readouterr().err
    assert f"{folder}/Dockerfile differs" in err
    assert "of-old has no target in the matrix" in err
    assert "hint: imagegen render" in err
    assert line(*words) == 0
    assert (folder / "Dockerfile").read_text() == before
    assert "of-old has no target" in capsys.readouterr().out


def test_build_print_is_the_definition_and_needs_no_engine(line: Any, tmp_path: Path) -> None:
    file = fresh(tmp_path)
    assert line("render", "--matrix", str(file)) == 0
    code, text = invoke("build", "*-demo", "--print", "--ca", "", "--matrix", str(file))
    assert code == 0
    document = json.loads(text)
    demos = [t for t in RESOLUTION.targets if t.profile == "demo"]
    assert len(document["target"]) == len(demos)
    assert line("build", "--print", "--ca", str(tmp_path / "none.pem")) == 2


# --- processes ------------------------------------------------------------------------------------


@pytest.mark.process
def test_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys, imagegen.cli.app; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert "imagegen.cli.app" in done.stdout.split()
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.process
def test_as_a_program_it_ends_as_it_should() -> None:
    argv = [sys.executable, "-m", "imagegen", "list", "nonsense"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("IMAGEGEN_")}
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 4
    assert done.stderr.startswith("error: no target matches 'nonsense'\n  hint: ")
    assert done.stdout == ""


@pytest.mark.process
def test_a_reader_that_leaves_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "imagegen", "list"]
    done = subprocess.run(
        argv, check=False, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    os.close(writer)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
