"""The documentation is whole: generated parts are current, links and paths lead somewhere."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import docs
from tests.support.shown import CODE, FENCE, PAGES, ROOT

BIN = Path(sys.executable).parent

LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"(?:imagegen|tests|benchmarks|dockerfiles|docs|\.github|\.ci)/[\w./*-]*")
MADE = {"dockerfiles/templates.json", "dockerfiles/locks/wheels.json"}
"""Files that a command writes when there is something to record."""


# --- generated parts ------------------------------------------------------------------------------


def test_the_generated_parts_are_current() -> None:
    stale = [file.name for file, text in docs.pages(ROOT).items() if file.read_text() != text]
    assert not stale, f"run python -m tests.support.docs: {', '.join(stale)}"


def test_check_tells_what_differs_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    for page in docs.pages(ROOT):
        (tmp_path / "docs" / page.name).write_text(page.read_text())
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    assert docs.main(["--check"]) == 0
    page = tmp_path / "docs" / "checks.md"
    text = page.read_text()
    changed = text.replace("| `smoke` | `nvcc` |", "| `smoke` | `gcc` |")
    assert changed != text
    page.write_text(changed)
    assert docs.main(["--check"]) == 1
    assert capsys.readouterr().out == "docs/checks.md is not up to date\n"
    assert page.read_text() == changed
    assert docs.main([]) == 0
    assert page.read_text() == text


def test_every_variable_that_the_program_reads_is_listed() -> None:
    """Those of os.environ, and names that a module holds to ask for them later."""
    read: set[str] = set()
    for file in (ROOT / "imagegen").rglob("*.py"):
        if (ROOT / "imagegen/image") not in file.parents:
            read |= _variables(ast.parse(file.read_text(encoding="utf-8")))
    listed = set(re.findall(r"^\| `([A-Z_]+)`", docs.cli_page(), re.MULTILINE))
    assert {"MAX_JOBS", "RUNPOD_API_KEY", "DOCKER_HOST", "IMAGEGEN_DEBUG"} <= read
    assert not read - listed - {"PATH", "PYTHONPATH"}
    assert not docs.ENVIRONMENT.keys() - read


def _variables(tree: ast.Module) -> set[str]:
    """The constants by which ``os.environ`` is asked, and all that look like an API's or a CA's."""
    found = set()
    for node in ast.walk(tree):
        asked: list[ast.expr] = []
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "os.environ.get":
            asked = node.args[:1]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            asked = [node.slice]
        elif isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]) == "os.environ":
            asked = [node.left]
        elif isinstance(node, ast.Constant) and re.fullmatch(
            r"[A-Z]+_(API_(KEY|URL)|CA_BUNDLE)|SSL_CERT_FILE", str(node.value)
        ):
            asked = [node]
        found |= {str(word.value) for word in asked if isinstance(word, ast.Constant)}
    return found


# --- links and paths ------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"], ids=str)
def test_every_link_leads_somewhere(page: Path) -> None:
    faults = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        name, _, anchor = link.partition("#")
        file = page.parent / name if name else page
        if not file.exists():
            faults.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(file):
            faults.append(f"{link}: no such heading")
    assert not faults, "\n".join(faults)


def anchors(file: Path) -> set[str]:
    """The headings of a page, as a browser and GitHub name them."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", file.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


def test_every_path_that_is_named_is_there() -> None:
    faults = {
        f"{page.relative_to(ROOT)}: {word}"
        for page in [*PAGES, ROOT / "SECURITY.md"]
        for word in paths(page.read_text(encoding="utf-8"))
        if word not in MADE and not list(ROOT.glob(word.rstrip("/.")))
    }
    assert not faults, "\n".join(sorted(faults))


def paths(text: str) -> list[str]:
    """What in a page's code is a path in this repository; `<target>` and `name:tag` are none."""
    code = [*CODE.findall(FENCE.sub("", text)), *(body for _, _, body in FENCE.findall(text))]
    words = re.findall(r"(?<![\w/.<-])[\w.][\w./*-]*/[\w./*-]*(?![\w<:])", " ".join(code))
    return [word for word in words if NAMED.fullmatch(word)]


# --- the site -------------------------------------------------------------------------------------


@pytest.mark.process
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # of the theme, about its future
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted(page.relative_to(tmp_path) for page in tmp_path.rglob("*.html"))
    assert len(pages) >= len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        text = (tmp_path / page).read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?:[^\"\s>]+)", text)
        assert not fetched, f"{page} loads {fetched}"
