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
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.support.values import ROOT

pytestmark = pytest.mark.process  # each check runs in a process of its own

IMAGE = ROOT / "imagegen/image"


def load(name: str) -> ModuleType:
    """The module as it runs in the image, where it belongs to no package."""
    (file,) = IMAGE.glob(f"*/{name}.py")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = ("suite", "cpu", "attention", "entries", "caches", "gpu")
suite, _cpu, _attention, entries, _caches, _gpu = map(load, MODULES)
_about, _ranks, device, smoke = map(load, ("about", "ranks", "device", "smoke"))


def checks(*bodies: Callable[[Any], str], timeout: float = 30, level: str = "cpu") -> list[Any]:
    made = suite.Suite()
    for body in bodies:
        made.check("a test", timeout=timeout, level=level)(body)
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


def not_promised(_: object) -> str:
    raise suite.NotPromised("the image has none")


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


def test_a_required_check_that_is_skipped_has_failed_and_says_so(
    capfd: pytest.CaptureFixture[str],
) -> None:
    every = [*checks(not_here, level="gpu"), *checks(good)]
    assert suite.run(every, None) == 0
    assert suite.run(every, None, required="gpu") == 1
    *_, required, passed = lines(capfd)
    assert (required["status"], passed["status"]) == ("fail", "pass")
    assert required["detail"] == "skipped, and level gpu is required: not here"


def test_another_levels_skip_is_not_required(capfd: pytest.CaptureFixture[str]) -> None:
    assert suite.run([*checks(not_here), *checks(good, level="gpu")], None, required="gpu") == 0
    assert [line["status"] for line in lines(capfd)] == ["skip", "pass"]


def test_what_the_image_does_not_promise_is_not_required_and_has_not_passed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    absent = checks(not_promised, level="gpu")
    assert suite.run(absent, None, required="gpu") == 1
    assert suite.run([*absent, *checks(good, level="gpu")], None, required="gpu") == 0
    told = lines(capfd)
    assert [line["status"] for line in told] == ["skip", "skip", "pass"]
    assert told[0]["detail"] == "the image has none"


def test_standard_output_holds_json_lines_only(capfd: pytest.CaptureFixture[str]) -> None:
    assert suite.run(checks(chatty), None) == 0
    (line,) = lines(capfd)
    assert set(line) == {"name", "status", "detail", "seconds", "guards", "level"}


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


def test_a_gpu_is_required_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("--level", "cpu", "--require", "gpu", "--only", "torch_matmul")
    assert run_main(monkeypatch, tmp_path, *words) == 1
    (line,) = lines(capfd)
    assert line["status"] == "fail"
    assert line["detail"].startswith("skipped, and level gpu is required")


def test_a_gpu_is_required_of_checks_that_need_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        run_main(monkeypatch, tmp_path, "--require", "gpu", "--only", "nvcc")
    assert left.value.code == 2
    assert "no check of that level is among those chosen" in capfd.readouterr().err


def test_the_checks_of_the_gpu_are_in_the_suite() -> None:
    assert device.SUITE.keys() <= smoke.SUITE.keys()


def test_an_unknown_check_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        run_main(monkeypatch, tmp_path, "--only", "nvc")
    assert left.value.code == 2
    assert "no such check: nvc" in capfd.readouterr().err


DROPOUT = (
    "This flash attention build does not support dropout: it holds head dimensions 128; types "
    "bf16; features backward. Build a wheel with --features that include it."
)
KERNEL = (
    "this flash-attn build has no forward kernel for head dimensions up to 64 in bf16. Build a "
    "wheel with --head-dims and --dtypes that include it."
)


@pytest.mark.parametrize(
    ("message", "missing", "enough"),
    [
        (DROPOUT, {"dropout"}, True),
        (DROPOUT, {"dropout", "local"}, True),  # the first of two is told
        (DROPOUT, {"softcap"}, False),
        (DROPOUT, {"kernel"}, False),  # it names head dimensions, but not how to get others
        (KERNEL, {"kernel"}, True),
        (KERNEL, {"uneven_k"}, False),
        ("This flash attention build does not support dropout.", {"dropout"}, False),
        ("dropout is not supported by this wheel, see --features", {"dropout"}, False),
        ("CUDA error: no kernel image is available for dropout --features", {"dropout"}, False),
    ],
)
def test_a_refusal_names_what_is_missing_and_how_to_get_it(
    message: str, missing: set[str], enough: bool
) -> None:
    assert entries.explains(message, frozenset(missing)) is enough


def raising(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def test_only_a_runtime_error_that_leaves_the_gpu_usable_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = SimpleNamespace(cuda=SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setitem(sys.modules, "torch", fake)
    assert entries.outcome(raising(RuntimeError(DROPOUT))) == ("refused", DROPOUT)
    assert entries.outcome(lambda: 7) == ("answered", 7)
    with pytest.raises(AssertionError, match="illegal memory access"):
        entries.outcome(raising(RuntimeError("CUDA error: an illegal memory access")))
    with pytest.raises(TypeError):  # a call that is wrong itself proves nothing
        entries.outcome(raising(TypeError("incompatible function arguments")))


def asked_all(
    monkeypatch: pytest.MonkeyPatch, features: set[str], answer: Callable[..., object]
) -> Any:
    """Verdicts on a build with `features` whose every entry point does as `answer`."""
    fake = SimpleNamespace(cuda=SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setattr(entries, "tensors", lambda *_: [])
    monkeypatch.setattr(entries, "Expected", lambda *_, **__: None)
    ways = (entries.Entry(answer), entries.Entry(answer, only_refuses=True))
    monkeypatch.setattr(entries, "ENTRIES", ways)
    verdicts = entries.Verdicts(frozenset(features))
    ask = entries.Ask("dropout", {"dropout_p": 0.1}, {}, frozenset(["dropout"]))
    verdicts.judge(128, "bf16", [ask], frozenset())
    return verdicts


def test_an_answer_where_a_refusal_is_due_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(**_: object) -> str:
        return "numbers"

    verdicts = asked_all(monkeypatch, {"backward"}, answers)
    with pytest.raises(AssertionError, match=r"answers: dropout, .*dropout left out, yet answered"):
        verdicts.settled()
    assert asked_all(monkeypatch, {"backward", "dropout"}, answers).faults == []


def test_a_refusal_is_due_or_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(**_: object) -> None:
        raise RuntimeError(DROPOUT)

    verdicts = asked_all(monkeypatch, {"backward"}, refuses)
    assert "refused: dropout (4)" in verdicts.settled()  # two ways in, two numbers of queries
    with pytest.raises(AssertionError, match="promised, yet refused"):
        asked_all(monkeypatch, {"backward", "dropout"}, refuses).settled()
