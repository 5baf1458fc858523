"""The checks of the GPU itself, each shown to fail, with stand-ins for torch and nvidia-smi."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.values import RESOLUTION, ROOT

IN_IMAGE = [str(ROOT / "imagegen/image" / folder) for folder in ("pod", "checks")]

sys.path[:0] = IN_IMAGE  # where the checks find one another, as in the image
try:
    device, ranks, suite = map(importlib.import_module, ("device", "ranks", "suite"))
finally:
    del sys.path[: len(IN_IMAGE)]

PROMISE = next(t.promise for t in RESOLUTION.targets if t.profile == "demo")  # CUDA 13.0


def no_gpu(monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    def init() -> None:
        raise RuntimeError(says)

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(init=init)))


# --- without a GPU every check fails --------------------------------------------------------------


def test_every_check_is_of_level_gpu_and_says_what_it_guards_against() -> None:
    assert {check.level for check in device.SUITE.values()} == {"gpu"}
    assert all(check.guards and check.timeout for check in device.SUITE.values())
    assert "804" in device.SUITE["driver_runs_cuda"].guards


@pytest.mark.parametrize("name", sorted(set(device.SUITE) - {"gpu_report", "driver_runs_cuda"}))
def test_a_missing_gpu_is_a_failure_and_no_skip(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS"):
        monkeypatch.setenv(key, "")  # torch_compile sets them, in a process of its own
    no_gpu(monkeypatch, "Found no NVIDIA driver on your system.")
    with pytest.raises(AssertionError, match=r"Found no NVIDIA driver.*--gpus all"):
        device.SUITE[name].body(PROMISE)


def test_no_nvidia_smi_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(suite.subprocess, "run", missing)
    with pytest.raises(AssertionError, match="nvidia-smi: expected on PATH"):
        device.gpu_report(PROMISE)


def missing(*_: object, **__: object) -> None:
    raise FileNotFoundError


def test_torch_that_says_it_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = SimpleNamespace(init=lambda: None, is_available=lambda: False)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=quiet))
    with pytest.raises(AssertionError, match=r"torch\.cuda\.is_available\(\), found False"):
        device.cuda()


def test_a_result_on_the_cpu_is_a_failure() -> None:
    device.on("cuda:0", SimpleNamespace(device="cuda:0"))
    with pytest.raises(AssertionError, match="expected 'cuda:0', found 'cpu'"):
        device.on("cuda:0", SimpleNamespace(device="cuda:0"), SimpleNamespace(device="cpu"))
    with pytest.raises(AssertionError, match="expected 'cuda:1', found 'cuda:0'"):
        device.on("cuda:1", SimpleNamespace(device="cuda:0"))


# --- the driver -----------------------------------------------------------------------------------


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "driver_cuda", lambda: None)
    with pytest.raises(AssertionError, match=r"found none .*--gpus all"):
        device.driver_runs_cuda(PROMISE)


def test_a_driver_of_an_older_major(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "driver_cuda", lambda: (12, 9))
    with pytest.raises(
        AssertionError, match=r"CUDA 13\.0 or newer, .* up to 12\.9: take a machine"
    ):
        device.driver_runs_cuda(PROMISE)


def test_any_driver_of_the_major_or_newer_will_do() -> None:
    device.new_enough((13, 0), PROMISE | {"cuda": "13.2.0"})
    device.new_enough((14, 0), PROMISE)


def test_error_804_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "driver_cuda", lambda: (13, 0))  # as the compat library says
    no_gpu(monkeypatch, "Error 804: forward compatibility was attempted on non supported HW")
    with pytest.raises(AssertionError, match="Error 804: forward compatibility"):
        device.driver_runs_cuda(PROMISE)


# --- the report -----------------------------------------------------------------------------------

H200 = "0, NVIDIA H200, 9.0, 580.159.03, 143771, 143150, 345, 1980, 3201, 3201, 700.00"


def smi(
    monkeypatch: pytest.MonkeyPatch, gpus: str, masks: str, *known: str
) -> list[tuple[str, ...]]:
    """An nvidia-smi that knows the given names of the clocks' reasons; what it was asked."""
    asked: list[tuple[str, ...]] = []

    def output(*argv: str, timeout: float) -> str:
        asked.append(argv)
        field = argv[1].partition("=")[2]
        if field in device.REASONS:
            suite.need(field in known, f'Field "{field}" is not a valid field to query.')
            return masks
        return gpus

    monkeypatch.setattr(device, "output", output)
    return asked


@pytest.mark.parametrize("known", [[name] for name in device.REASONS] + [list(device.REASONS)])
def test_a_report_from_old_and_new_drivers(
    known: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = smi(monkeypatch, H200 + "\n", "0x0000000000000001\n", *known)
    said = device.gpu_report(PROMISE)
    assert said == (
        "GPU 0: NVIDIA H200, compute capability 9.0, driver 580.159.03, 143150 of 143771 MiB free, "
        "SM at 345 of 1980 MHz, memory at 3201 of 3201 MHz, limit 700.00 W, clocks held by idle"
    )
    assert all(argv[2] == "--format=csv,noheader,nounits" for argv in asked)  # never the heading


def test_a_driver_that_knows_no_name_of_the_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    smi(monkeypatch, H200, "")
    with pytest.raises(AssertionError, match="not a valid field to query"):
        device.gpu_report(PROMISE)


def test_a_gpu_that_others_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    second = H200.replace("0, NVIDIA", "1, NVIDIA", 1).replace("143150", "1023")
    smi(monkeypatch, f"{H200}\n{second}\n", "0x0\n0x0\n", *device.REASONS)
    with pytest.raises(
        AssertionError, match=r"GPU 1 .*at least 1024 MiB free, found 1023 of 143771"
    ):
        device.gpu_report(PROMISE)


def test_memory_that_cannot_be_read_is_a_failure_and_shared_memory_is_none() -> None:
    gpu = dict(zip(device.FIELDS, H200.split(", "), strict=True))
    device.roomy(gpu | {"memory.free": "1024"})
    device.roomy(gpu | {"memory.free": "[N/A]"})
    with pytest.raises(AssertionError, match=r"found \[GPU is lost\]"):
        device.roomy(gpu | {"memory.free": "[GPU is lost]"})


def test_no_gpu_in_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    smi(monkeypatch, "\n", "", *device.REASONS)
    with pytest.raises(AssertionError, match="expected a line for each GPU"):
        device.gpu_report(PROMISE)


def test_a_line_of_another_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    smi(monkeypatch, "No devices were found\n", "", *device.REASONS)
    with pytest.raises(AssertionError, match="expected 11 values, found"):
        device.gpu_report(PROMISE)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ("0x0000000000000000", "nothing"),
        ("0x0000000000000044", "power cap, heat (hardware)"),
        ("0x0000000000000a01", "idle, 0xa00"),  # what a later driver adds
        ("[N/A]", "[N/A]"),
    ],
)
def test_reasons_of_the_clocks(mask: str, words: str) -> None:
    assert device.reasons(mask) == words


# --- arithmetic -----------------------------------------------------------------------------------


@dataclass
class Numbers:
    """As much of a tensor as a comparison needs."""

    of: list[float]

    def _each(self, other: Any, call: Callable[[float, float], float]) -> Numbers:
        others = other.of if isinstance(other, Numbers) else [other] * len(self.of)
        return Numbers([call(x, y) for x, y in zip(self.of, others, strict=True)])

    def __sub__(self, other: Any) -> Numbers:
        return self._each(other, lambda x, y: x - y)

    def __mul__(self, other: Any) -> Numbers:
        return self._each(other, lambda x, y: x * y)

    def __add__(self, other: Any) -> Numbers:
        return self._each(other, lambda x, y: x + y)

    def __truediv__(self, other: Any) -> Numbers:
        return self._each(other, lambda x, y: x / y)

    def abs(self) -> Numbers:
        return Numbers([abs(x) for x in self.of])

    def max(self) -> Numbers:
        return Numbers([math.nan if any(map(math.isnan, self.of)) else max(self.of)])

    def item(self) -> float:
        (x,) = self.of
        return x


def off(found: Iterable[float]) -> float:
    exact = Numbers([100.0, -2.0, 0.0])
    error: float = device.off(Numbers([*found]), exact, relative=2**-8, absolute=0.05)
    return error


def test_rounding_is_right() -> None:
    device.right("product", off([100.39, -2.05, 0.04]))


@pytest.mark.parametrize(
    "found",
    [
        [101.0, -2.0, 0.0],  # one percent
        [100.0, 2.0, 0.0],  # a sign
        [100.0, -2.0, 0.1],  # something where there is nothing
        [100.0, -2.0, math.nan],
        [math.inf, -2.0, 0.0],
    ],
)
def test_more_than_rounding_is_wrong(found: list[float]) -> None:
    with pytest.raises(AssertionError, match="product: expected errors within rounding"):
        device.right("product", off(found))


def test_fp8_is_asked_only_of_cards_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {"cuda:0": ("NVIDIA A100", (8, 0)), "cuda:1": ("NVIDIA L4", (8, 9))}
    about = SimpleNamespace(
        get_device_name=lambda at: cards[at][0], get_device_capability=lambda at: cards[at][1]
    )
    monkeypatch.setattr(device, "cuda", lambda: SimpleNamespace(cuda=about))
    monkeypatch.setattr(device, "fp8", lambda _torch, _at: 0.5)
    monkeypatch.setattr(device, "devices", lambda _: ["cuda:0", "cuda:1"])
    assert device.torch_matmul_fp8(PROMISE).startswith("cuda:1 NVIDIA L4: 0.50")
    monkeypatch.setattr(device, "devices", lambda _: ["cuda:0"])
    with pytest.raises(suite.NotPromised, match=r"8\.9: NVIDIA A100 has compute capability 8\.0"):
        device.torch_matmul_fp8(PROMISE)
    monkeypatch.setattr(device, "devices", lambda _: ["cuda:1"])
    monkeypatch.setattr(device, "fp8", lambda _torch, _at: 1.5)
    with pytest.raises(AssertionError, match=r"e4m3 product on cuda:1 .*1\.5 times"):
        device.torch_matmul_fp8(PROMISE)


# --- compilers ------------------------------------------------------------------------------------

LOG = """Error building extension 'imagegen_probe': [1/3] /usr/local/cuda/bin/nvcc -c cuda.cu
FAILED: cuda.cuda.o
/usr/include/ATen/cuda/CUDAContextLight.h:7:10: fatal error: cusparse.h: No such file or directory
compilation terminated.
[2/3] c++ -c main.cpp -o main.o
ninja: build stopped: subcommand failed.
"""


def test_a_builds_log_is_cut_to_its_errors() -> None:
    assert "cusparse.h: No such file" in device.faults(LOG)
    assert "main.o" not in device.faults(LOG)
    assert device.faults("Unknown CUDA arch (13.0) or GPU not supported").startswith("Unknown CUDA")


def test_no_ninja_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "cuda", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssertionError, match="expected ninja on PATH"):
        device.cpp_extension(PROMISE)


# --- GPUs with one another ------------------------------------------------------------------------


def report(rank: int, **other: object) -> dict[str, object]:
    right = {"all_reduce": 0, "all_gather": 0, "broadcast": 0}
    told = {"rank": rank, "world": 2, "backend": "nccl", "device": f"cuda:{rank}"}
    return told | {"wrong": right, "seconds": 0.001} | other


def test_every_process_got_every_number() -> None:
    said = ranks.judged(2, [report(0), report(1, seconds=0.002)])
    assert said == "2 GPUs, all numbers right, all_reduce of 64 MiB at 33.6 GB/s"  # the slower one
    assert "nothing travels" in ranks.judged(1, [report(0, world=1)])


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ([report(0)], "processes that reported"),
        ([report(0), report(1, world=1)], "process 1: size of the group: expected 2, found 1"),
        ([report(0, backend="gloo"), report(1)], "process 0: backend"),
        ([report(0), report(1, device="cuda:0")], "expected 'cuda:1', found 'cuda:0'"),
        ([report(0), report(1, device="cpu")], "expected 'cuda:1', found 'cpu'"),
        ([report(0, wrong={"all_reduce": 3, "all_gather": 0, "broadcast": 0}), report(1)], "wrong"),
        ([report(0, wrong={"all_reduce": 0}), report(1)], "numbers that arrived wrong"),
    ],
)
def test_what_is_no_success_between_gpus(told: list[dict[str, object]], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        ranks.judged(2, told)


def test_a_process_that_ends_without_a_report(tmp_path: Path) -> None:
    (tmp_path / "report0").write_text(json.dumps(report(0)))
    with pytest.raises(AssertionError, match=r"report of every process, found none of \[1\]"):
        ranks.reports(2, str(tmp_path))


class Group:
    """Processes as torch.multiprocessing gives them, of which each wait has one outcome."""

    def __init__(self, *outcomes: bool | Exception) -> None:
        self.outcomes = list(outcomes)

    def join(self, timeout: float) -> bool:
        assert timeout >= 0
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def test_processes_that_all_end(tmp_path: Path) -> None:
    ranks.joined(Group(False, True), 2, str(tmp_path))


def test_processes_that_hang_say_where(tmp_path: Path) -> None:
    (tmp_path / "stage0").write_text("all_reduce")
    with pytest.raises(AssertionError) as hung:
        ranks.joined(Group(False), 2, str(tmp_path), patience=0.01)
    said = str(hung.value)
    assert "processes at 0: all_reduce, 1: starting. no result within 0.01 s" in said
    assert "NCCL_P2P_DISABLE=1" in said
    assert "--shm-size" in said


def test_a_process_that_dies_is_told_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"1: starting\. process 1 terminated with SIGABRT"):
        ranks.joined(Group(RuntimeError("process 1 terminated with SIGABRT")), 2, str(tmp_path))


def test_a_hang_is_told_before_the_runner_gives_up() -> None:
    """The runner knows only that there was no result; NCCL's own limit comes first of all."""
    assert ranks.STUCK < ranks.PATIENCE < device.SUITE["nccl_all_gpus"].timeout - 30


@pytest.mark.parametrize(
    ("capability", "archs", "fits"),
    [
        ((9, 0), ["sm_80", "sm_90a"], True),
        ((8, 9), ["sm_80"], True),
        ((7, 0), ["sm_75", "sm_80", "compute_120"], False),
        ((12, 1), ["sm_80", "compute_120"], True),  # what the driver compiles
        ((10, 0), ["sm_80", "sm_90", "sm_120"], False),
    ],
)
def test_torch_has_kernels_for_a_gpu_or_what_its_driver_compiles(
    capability: tuple[int, int], archs: list[str], fits: bool
) -> None:
    if fits:
        device.built_for(capability, archs)
    else:
        with pytest.raises(AssertionError, match="torch has no kernels for compute capability"):
            device.built_for(capability, archs)
