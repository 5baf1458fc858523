"""The in-image runner must never call a crash, a hang or an empty run a success."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.process  # each check runs in a process of its own

IMAGE = Path(__file__).parents[2] / "imagegen/image/pod"


def load(name: str) -> ModuleType:
    """The module as it runs in the image, where it belongs to no package."""
    spec = importlib.util.spec_from_file_location(name, IMAGE / f"{name}.py")
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


suite, _cpu, _gpu, smoke = map(load, ("suite", "cpu", "gpu", "smoke"))


def checks(*bodies: Callable[[Any], str], timeout: float = 30) -> list[Any]:
    made = suite.Suite()
    for body in bodies:
        made.check("a test", timeout=timeout)(body)
    return list(made.values())


def good(_: object) -> str:
    return "fine"


def segfault(_: object) -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return "unreachable"


def leave(_: object) -> str:
    sys.exit(0)


def hang(_: object) -> str:
    subprocess.run(["sleep", "60"], check=True)
    return "unreachable"


def not_here(_: object) -> str:
    raise suite.Skip("not here")


def chatty(_: object) -> str:
    os.write(1, b"a library's banner\n")
    print("and more")
    return "quiet enough"


def wrong(_: object) -> str:
    suite.same("torch", "2.11.0", "2.10.0")
    return "unreachable"


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_no_check_is_a_failure() -> None:
    assert suite.run([], None) == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (segfault, "SIGSEGV"),
        (leave, "SystemExit"),
        (wrong, "torch: expected '2.11.0', found '2.10.0'"),
    ],
)
def test_a_check_that_breaks_has_failed_and_the_next_one_runs(
    body: Callable[[Any], str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert suite.run(checks(body, good), None) == 1
    first, second = lines(capfd)
    assert first["status"] == "fail"
    assert says in first["detail"]
    assert second["status"] == "pass"


def test_a_check_that_hangs_has_failed_and_leaves_nothing_running(
    capfd: pytest.CaptureFixture[str],
) -> None:
    start = time.monotonic()
    assert suite.run(checks(hang, timeout=1), None) == 1
    assert time.monotonic() - start < 10
    (line,) = lines(capfd)
    assert line["status"] == "fail"
    assert "within 1 s" in line["detail"]


def test_a_skip_is_not_a_pass(capfd: pytest.CaptureFixture[str]) -> None:
    assert suite.run(checks(not_here), None) == 1
    assert suite.run(checks(not_here, good), None) == 0
    assert [line["status"] for line in lines(capfd)] == ["skip", "skip", "pass"]


def test_standard_output_holds_json_lines_only(capfd: pytest.CaptureFixture[str]) -> None:
    assert suite.run(checks(chatty), None) == 0
    (line,) = lines(capfd)
    assert set(line) == {"name", "status", "detail", "seconds", "guards"}


def run_main(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: str) -> int:
    promise = tmp_path / "target.json"
    promise.write_text("{}")
    monkeypatch.setattr(sys, "argv", ["smoke.py", "--promise", str(promise), *arguments])
    code = smoke.main()
    assert isinstance(code, int)
    return code


def test_a_gpu_check_without_a_gpu_level_is_skipped_and_no_success(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, tmp_path, "--only", "llama_trains") == 1
    (line,) = lines(capfd)
    assert (line["status"], line["detail"]) == ("skip", "needs --level gpu")


def test_an_unknown_check_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        run_main(monkeypatch, tmp_path, "--only", "nvc")
    assert left.value.code == 2
    assert "no such check: nvc" in capfd.readouterr().err
