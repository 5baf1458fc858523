"""What the documentation shows is what the program does: a command is run, or at least parsed."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from imagegen.cli.app import app
from imagegen.errors import ImpossibleCombination
from tests.support.docs import commands
from tests.support.shown import CODE, FENCE, PAGES, ROOT, Shown, calls, lines, shown

PLACEHOLDERS = {
    "TARGET": "debian12-cuda13.0-torch2.11-py3.11-demo",
    "COMMAND": "list",
}

QUIET = {"list", "why", "pick", "wheel list", "wheel plan"}
"""Commands that need no engine and no network, and write nothing."""

QUIET_WITH = {
    "render": "--check",
    "lock": "--check",
    "test": "--list",
    "template table": "--check",
}
"""Commands of which that is true with an option."""

LOUD = {"--from-nvidia-smi", "--wheels"}
"""Options that ask a GPU or a store."""

OTHERS = {"--gpus", "--shm-size"}
"""Options of other programs that the text explains."""

PROGRAMS = {".ci/run", "docker", "export", "git", "imagegen", "pip", "ssh", "uv"}


def every() -> Iterator[Shown]:
    for page in PAGES:
        yield from shown(page)


def tree() -> dict[str, typer.core.TyperCommand]:
    return dict(commands(typer.main.get_command(app)))


SHOWN = [one for one in dict.fromkeys(every()) if any(calls(one.line))]
NAMES = set(tree()) | {name.split()[0] for name in tree()}


def filled(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words with something in place of what a reader fills in, without an ellipsis."""
    return tuple(PLACEHOLDERS.get(word, word) for word in words if word != "…")


def name_of(words: tuple[str, ...]) -> str:
    """The command that ``words`` begin with, of one word or two; empty where it is none."""
    found = (" ".join(words[:count]) for count in (2, 1))
    return next((name for name in found if name in tree()), "")


def parse(words: tuple[str, ...]) -> None:
    """Let the real command line read ``words``, and do nothing.

    Raises:
        Exception: it does not take them.
    """
    root = typer.main.get_command(app)
    for command in (root, *(command for _, command in commands(root))):
        command.callback = lambda **_: None
    root.main(list(words), prog_name="imagegen", standalone_mode=False)


def fault(words: tuple[str, ...]) -> str:
    """Why the command line does not take ``words``; a bare name stands for the command."""
    if " ".join(words) in NAMES:
        return ""
    try:
        parse(words)
    except Exception as error:
        return getattr(error, "message", "") or repr(error)
    return ""


def runs_alone(words: tuple[str, ...]) -> bool:
    name = name_of(words)
    quiet = name in QUIET or QUIET_WITH.get(name) in words
    return quiet and " ".join(words) not in NAMES and not LOUD & set(words)


RUN = [one for one in SHOWN for words in calls(one.line) if runs_alone(filled(words))]


# --- every command --------------------------------------------------------------------------------


def test_every_command_that_is_shown_is_taken() -> None:
    faults = [
        f"{one.page}: {one.line}: {wrong}"
        for one in SHOWN
        for words in calls(one.line)
        if (wrong := fault(filled(words)))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "line",
    [
        "imagegen build TARGET --no-such-option",
        "imagegen bake TARGET",
        "imagegen build TARGET --base nowhere",
        "RUNPOD_API_KEY=... imagegen template runpod TARGET --aply",
        "pip install uv && uv run -m imagegen demo --no-such-option",
        "imagegen wheel push --force",
    ],
)
def test_what_is_wrong_is_found(line: str) -> None:
    (words,) = calls(line)
    assert fault(filled(words))


@pytest.mark.parametrize("one", RUN, ids=[f"{one.page}: {one.line}" for one in RUN])
def test_a_command_that_needs_nothing_runs(one: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (words,) = calls(one.line)
    result = CliRunner().invoke(app, list(filled(words)))
    impossible = result.exit_code == ImpossibleCombination.exit_code
    assert result.exit_code == 0 or (name_of(filled(words)) == "why" and impossible), result.output
    if one.output:
        assert result.stdout == one.output.rstrip("\n") + "\n"


def test_there_is_something_to_run() -> None:
    assert len(RUN) > 10
    assert len([one for one in RUN if one.output.startswith("impossible: ")]) >= 3
    assert {name_of(words) for one in SHOWN for words in calls(one.line)} >= tree().keys()


def test_every_session_is_run() -> None:
    """An output that is shown with its command would otherwise be believed."""
    assert not [one.line for one in SHOWN if one.output and one not in RUN]


# --- what stands around them ----------------------------------------------------------------------


def test_every_option_that_the_text_names_exists() -> None:
    known = {
        option
        for command in (typer.main.get_command(app), *tree().values())
        for parameter in command.params
        for option in parameter.opts
    }
    faults = [
        f"{page.name}: {option}"
        for page in PAGES
        for code in CODE.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
        if code.startswith("--")
        for option in re.findall(r"(?<!\S)--[a-z][\w-]*", code)
        if option not in known | OTHERS
    ]
    assert not faults, "\n".join(faults)


def test_every_other_program_is_known() -> None:
    """A line begins with a program that a reader has, and a Python module that it runs exists."""
    faults = []
    for page in PAGES:
        blocks = FENCE.findall(page.read_text(encoding="utf-8"))
        for line in (
            line for _, language, body in blocks if language == "sh" for line in lines(body)
        ):
            words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
            modules = re.findall(r"(?<=-m )[\w.]+", line)
            if words[0] not in PROGRAMS:
                faults.append(f"{page.name}: {line}: what is {words[0]}?")
            with contextlib.suppress(ModuleNotFoundError):
                modules = [name for name in modules if importlib.util.find_spec(name) is None]
            faults += [f"{page.name}: {line}: no module {name}" for name in modules]
    assert not faults, "\n".join(faults)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_readme_s_test_command_is_one_line() -> None:
    (line,) = [one for one in Path(ROOT, "README.md").read_text().splitlines() if "pytest" in one]
    assert line.startswith("pip install uv && uv venv ")
    assert line.endswith(" -r requirements-dev.lock && uv run pytest -n 2")
