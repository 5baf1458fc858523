"""The files that tools of a repository read: forms, hooks, updates, releases."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import imagegen
from tests.support.shown import ROOT
from tests.unit.test_readme import fault

pytestmark = pytest.mark.process

BIN = Path(sys.executable).parent
NOTES = ROOT / ".ci/release-notes"

FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
SCHEMAS = [
    (".github/dependabot.yml", "vendor.dependabot"),
    (".github/ISSUE_TEMPLATE/config.yml", "vendor.github-issue-config"),
    *(
        (form.relative_to(ROOT).as_posix(), "vendor.github-issue-forms")
        for form in FORMS
        if form.name != "config.yml"
    ),
]


def tool(name: str, *words: str) -> None:
    """Run a tool of this environment; its output is the failure."""
    done = subprocess.run(
        [BIN / name, *words], check=False, capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        pytest.fail(f"{name} {' '.join(words)}\n{done.stdout}{done.stderr}", pytrace=False)


# --- forms and updates ----------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "schema"), SCHEMAS, ids=[file for file, _ in SCHEMAS])
def test_a_file_that_github_reads_has_the_right_form(file: str, schema: str) -> None:
    tool("check-jsonschema", "--builtin-schema", schema, file)


def test_updates_are_safe() -> None:
    tool("zizmor", "--offline", "--no-progress", "--strict-collection", ".github/dependabot.yml")


def test_there_is_a_form_for_each_kind_of_issue() -> None:
    assert {form.stem for form in FORMS} == {"bug", "combination", "platform", "config"}


# --- hooks ----------------------------------------------------------------------------------------


def test_hooks_for_users_call_what_there_is() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert {hook["id"] for hook in hooks} == {"imagegen-render", "imagegen-lock"}
    for hook in hooks:
        program, *words = shlex.split(hook["entry"])
        assert program == "imagegen"
        assert not fault(tuple(words))
        assert not hook["pass_filenames"]
        assert re.search(hook["files"], "dockerfiles/matrix.toml")
        assert not re.search(hook["files"], "README.md")


def test_hooks_for_contributors_use_this_environment() -> None:
    """No repository is named, so nothing is fetched; every tool and module is there."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    files = [str(file.relative_to(ROOT)) for file in ROOT.glob("*/*") if file.parent.name != ".git"]
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        uv, run, *words = shlex.split(hook["entry"])
        assert (uv, run) == ("uv", "run")
        if words[0] == "-m":
            assert importlib.util.find_spec(words[1]), words[1]
        else:
            assert (BIN / words[0]).exists(), words[0]
        assert any(re.search(hook.get("files", ""), file) for file in [*files, *_workflows()])


def _workflows() -> list[str]:
    return [str(file.relative_to(ROOT)) for file in (ROOT / ".github/workflows").iterdir()]


# --- releases -------------------------------------------------------------------------------------


def notes(version: str, *file: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [NOTES, version, *file], check=False, capture_output=True, text=True, cwd="/"
    )


def versions() -> list[str]:
    heads = re.findall(r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == ("Unreleased", "")
    assert all(re.fullmatch(r" - \d{4}-\d\d-\d\d", day) for _, day in heads[1:])
    return [version for version, _ in heads[1:]]


def test_this_version_has_notes() -> None:
    assert imagegen.__version__ in versions()


@pytest.mark.parametrize("prefix", ["", "v"])
def test_the_notes_of_a_version_are_its_section_and_no_other(prefix: str) -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    for version in versions():
        done = notes(prefix + version)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() in text
        assert "## [" not in done.stdout
        assert done.stdout.startswith(
            text.split(f"## [{version}]")[1].split("\n", 1)[1].strip()[:40]
        )


@pytest.mark.parametrize("version", ["9.9.9", "", "0.1", "0.1.0.", "0-1.0", "v"])
def test_a_version_without_notes_is_no_release(version: str) -> None:
    done = notes(version)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "says nothing of version" in done.stderr


def test_an_empty_section_is_no_note(tmp_path: Path) -> None:
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## [1.1.0]\n\n## [1.0.0] - 2026-01-02\n\n- One.\n- Two.\n")
    assert notes("1.1.0", changelog).returncode == 1
    assert notes("v1.0.0", changelog).stdout == "- One.\n- Two.\n"


def test_a_release_publishes_what_was_tried_and_stores_no_token() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    assert jobs["publish"]["needs"] == "build"
    assert jobs["release"]["needs"] == "publish"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    commands = "\n".join(step.get("run", "") for step in jobs["build"]["steps"])
    assert commands.index(".ci/release-notes") < commands.index("uv build")
    for line in re.findall(r'^"\$imagegen" (.*)$', commands, re.MULTILINE):
        assert not fault(tuple(shlex.split(line)))
    assert '"$imagegen" why' in commands
