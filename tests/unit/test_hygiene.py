"""The repository as its tools see it: each is a test that shows what the tool said."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from imagegen.platforms import PLATFORMS
from tests.conftest import ENGINE_FILES
from tests.support.values import ROOT

pytestmark = pytest.mark.process

BIN = Path(sys.executable).parent
SHEBANG = re.compile(rb"#!/(usr/)?bin/(env )?(ba)?sh\b")
LOCAL = {"__pycache__", ".git"}
LINTED = (".ci", "imagegen", "benchmarks", "tests")


def is_shell(file: Path) -> bool:
    with file.open("rb") as text:
        return file.suffix == ".sh" or SHEBANG.match(text.readline(100)) is not None


SHELL = [
    file.relative_to(ROOT).as_posix()
    for folder in LINTED
    for file in sorted((ROOT / folder).rglob("*"))
    if file.is_file() and not LOCAL & set(file.parts) and is_shell(file)
]
WORKFLOWS = sorted(
    file.relative_to(ROOT).as_posix() for file in (ROOT / ".github/workflows").glob("*.y*ml")
)


def tool(name: str, *words: str) -> None:
    """Run a tool of this environment; its output is the failure."""
    done = subprocess.run(
        [BIN / name, *words], check=False, capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        pytest.fail(f"{name} {' '.join(words)}\n{done.stdout}{done.stderr}", pytrace=False)


# --- Python ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("ruff", "check", "--no-cache", "."),
        ("ruff", "format", "--no-cache", "--check", "."),
        ("mypy",),
        ("lint-imports", "--no-cache", "--no-logo"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_python(words: tuple[str, ...]) -> None:
    tool(*words)


# --- shell, workflows, Dockerfiles ----------------------------------------------------------------


def test_there_is_shell_to_look_at() -> None:
    assert {"imagegen/image/build/with-network", "imagegen/image/build/apt-install"} <= set(SHELL)


@pytest.mark.parametrize("file", SHELL)
def test_shell(file: str) -> None:
    tool("shellcheck", "--external-sources", file)


@pytest.mark.parametrize("file", WORKFLOWS)
def test_a_workflow_has_the_right_form(file: str) -> None:
    tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", file)


@pytest.mark.parametrize("file", WORKFLOWS)
def test_a_workflow_is_safe(file: str) -> None:
    tool("zizmor", "--offline", "--no-progress", "--strict-collection", file)


def test_dockerfiles() -> None:
    """All at once: they are many, and alike."""
    files = sorted(file.relative_to(ROOT).as_posix() for file in ROOT.glob("*/*/Dockerfile"))
    assert len(files) > 50
    # DL3022: `COPY --from=image` takes a named context of the build, which is no stage.
    tool("hadolint", "--no-color", "--ignore", "DL3022", *files)


# --- what is generated, and what is run -----------------------------------------------------------


@pytest.mark.parametrize("what", ["render", "lock"])
def test_what_is_generated_is_current(what: str) -> None:
    tool("python", "-m", "imagegen", what, "--check")


def test_every_test_is_in_a_part_of_the_gate() -> None:
    """`.ci/run` runs two folders, one of them in two parts."""
    parts = {ROOT / "tests/unit", ROOT / "tests/engine"}
    files = [*(ROOT / "tests").rglob("test_*.py")]
    assert len(files) > 50
    assert [file for file in files if not parts & {*file.parents}] == []
    assert {*chain(*ENGINE_FILES)} <= {file.stem for file in (ROOT / "tests/engine").iterdir()}


def patched() -> Iterator[tuple[str, str]]:
    """Every name of imagegen that a test replaces by a string, and where."""
    for file in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="setattr" | "delattr"),
                    args=[ast.Constant(value=str(name)), *_],
                ):
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", name


def resolves(name: str) -> bool:
    """Whether a dotted name is that of a module, or of something in one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def test_what_tests_replace_by_its_name_exists() -> None:
    names = [(place, name) for place, name in patched() if name.startswith("imagegen.")]
    assert names
    faults = [f"{place}: {name}" for place, name in names if not resolves(name)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("imagegen.platforms.PLATFORMS", True),
        ("imagegen.platforms", True),
        ("imagegen.platforms.none", False),
        ("imagegen.none.PLATFORMS", False),
    ],
)
def test_a_name_that_is_gone_is_found(name: str, found: bool) -> None:
    assert resolves(name) == found


# --- what no file may say -------------------------------------------------------------------------


def served() -> str:
    """Where templates are made and used, as a pattern: each platform's API and its links."""
    addresses = [platform.address for platform in PLATFORMS.values()]
    for name in PLATFORMS:
        module = importlib.import_module(f"imagegen.platforms.{name}.apply")
        addresses += [link("x") for link in [getattr(module, "link", None)] if link]
    return "|".join(sorted({re.escape(urlsplit(address).hostname or "") for address in addresses}))


SERVED = served()
TITLES = "|".join(re.escape(platform.title) for platform in PLATFORMS.values())
RESERVED = r"([\w-]+\.)*example(\.(com|org|net))?"  # RFC 2606
ALLOWED = re.compile(
    rf"{RESERVED}|{SERVED}|localhost|127\.0\.0\.1"
    r"|x?-(8888)?\.proxy\.runpod\.net\$?"  # the origin that it gives to Jupyter
    r"|\W*"  # filled in by the program
)
"""Hosts in URLs. Where packages come from is a setting, and never written down."""

IN_FACTS = re.compile(r"github\.com")
"""Further hosts in imagegen/data, where a fact says from where its authors publish something."""

ALLOWED_WORDS = re.compile(
    rf"{RESERVED}|{SERVED}|{TITLES}|docker\.io|ghcr\.io|x-8888\.proxy\.runpod\.net"
    r"|github\.com"  # the name of a Go module, in the output of docker buildx version
    r"|imagegen\.net"  # a package of ours
)
"""Names of hosts outside URLs: image registries and the platforms that are served."""

URL = re.compile(
    r"\b(?:https?|ftps?|git|ssh|s3|gs|unix)://(?:[^/@\s\"'<>]*@)?([^/\s\"'<>`)\\,]*)",
    re.IGNORECASE,
)
WORD = re.compile(r"(?<![\w@.-])(?:[a-z0-9-]+\.)+(?:com|org|net|io|dev|ai|cn)\b(?![\w.(=-])")
FORMATTED = re.compile(r"\{[^{}]*\}|\$\{?\w+\}?|%[sd]")


def tracked() -> list[Path]:
    """Every text file of the repository, those not yet added too."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if done.returncode:
        pytest.skip("not a checkout")
    found = [ROOT / name for name in done.stdout.split("\0") if name]
    return [file for file in found if file.is_file() and b"\0" not in file.read_bytes()[:4096]]


def hosts(text: str) -> set[str]:
    """The hosts of the URLs in ``text``, without ports; what a program fills in is left out."""
    text = text.replace("\\.", ".")  # in a regular expression
    found = (FORMATTED.sub("", host) for host in URL.findall(text))
    return {re.sub(r":\d*$", "", host).rstrip(".;:") for host in found}


def test_no_url_leads_to_where_packages_come_from() -> None:
    faults = [
        f"{file.relative_to(ROOT)}: {host}"
        for file in tracked()
        for host in sorted(hosts(file.read_text()))
        if not ALLOWED.fullmatch(host)
        if not (ROOT / "imagegen/data" in file.parents and IN_FACTS.fullmatch(host))
    ]
    assert not faults, "\n".join(faults)


def test_no_host_is_named_otherwise() -> None:
    faults = [
        f"{file.relative_to(ROOT)}: {word}"
        for file in tracked()
        for word in sorted(set(WORD.findall(file.read_text())))
        if not ALLOWED_WORDS.fullmatch(word)
    ]
    assert not faults, "\n".join(faults)


def test_no_lock_and_no_rendered_file_holds_a_url() -> None:
    files = [file for file in tracked() if "locks" in file.parts or file.suffix == ".lock"]
    files += ROOT.glob("dockerfiles/*/Dockerfile")
    assert len(files) > 100
    assert not [file for file in files if "://" in file.read_text()]


def test_no_file_names_a_path_of_this_machine() -> None:
    places = {str(place) for place in (ROOT, ROOT.parent, Path.home()) if len(place.parts) > 2}
    pattern = re.compile("|".join(rf"(?<![\w.-]){re.escape(p)}(?![\w-])" for p in sorted(places)))
    assert places
    faults = [str(file.relative_to(ROOT)) for file in tracked() if pattern.search(file.read_text())]
    assert not faults


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "see https://a.b.example/x and http://user:pw@c.example:8080/y.",
            {"a.b.example", "c.example"},
        ),
        ('f"http://{host}:{port}/v2/"', {""}),
        ('"https://$mirror/x"', {""}),
        (r"^https://a\.b\.example/$", {"a.b.example"}),
        ("unix:///var/run/x.sock", {""}),
        ("no address: at all//", set()),
    ],
)
def test_hosts_are_found(text: str, found: set[str]) -> None:
    assert hosts(text) == found


@pytest.mark.parametrize("host", ["api.runpod.io", "cloud.vast.ai", "a.example", "127.0.0.1"])
def test_hosts_that_are_served_are_allowed(host: str) -> None:
    assert ALLOWED.fullmatch(host)


@pytest.mark.parametrize("host", ["runpod" + ".io", "x.api.runpod" + ".io", "other.vast" + ".ai"])
def test_other_hosts_of_a_platform_are_not(host: str) -> None:
    assert not ALLOWED.fullmatch(host)
    assert not ALLOWED_WORDS.fullmatch(host)
