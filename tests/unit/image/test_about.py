"""What a pod says of its GPU where it and the image do not fit together."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest

from tests.support.values import ROOT


def load() -> ModuleType:
    """The module as it runs in the image, where it belongs to no package."""
    file = ROOT / "imagegen/image/pod/about.py"
    spec = importlib.util.spec_from_file_location("pod_about", file)
    assert spec
    assert spec.loader
    module = sys.modules["pod_about"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


about = load()
HAS = {
    "cuda": "13.0.2",
    "torch": "2.11.0",
    "torch_cuda": "13.0",
    "python": "3.11",
    "driver": "580.65.06",
    "archs": [80, 90],
    "flash_attn": {"version": "2.8.3.post2", "archs": [80], "head_dims": [128], "dtypes": ["bf16"]},
}
A100 = about.Gpu("NVIDIA A100", "580.95.05", 80)


@pytest.fixture(autouse=True)
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The torch that the image was made with is still there."""
    monkeypatch.setattr(about, "torch_here", lambda: "2.11.0")


def test_another_torch_than_the_image_s_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(about, "torch_here", lambda: "2.5.0")
    assert "torch 2.5.0" in about.sentence(HAS, [])
    (line,) = about.replaced(HAS)
    assert "made with torch 2.11.0" in line
    assert "and now has 2.5.0" in line


@pytest.mark.parametrize(
    ("cuda", "error", "says"),
    [
        ((13, 0), 0, []),
        ((13, 2), 0, []),
        (None, 0, []),
        ((12, 4), 804, ["runs CUDA up to 12.4, and this image needs driver 580.65.06 or newer"]),
        (
            (13, 0),
            804,
            ["CUDA does not start with its driver 580.95.05 (error 804): take a"],
        ),
        ((13, 0), 802, ["CUDA does not start (error 802): restart the pod"]),
    ],
)
def test_a_driver_that_does_not_fit_is_said_with_what_to_do(
    cuda: tuple[int, int] | None, error: int, says: list[str]
) -> None:
    found = about.advice(HAS, [A100], cuda, error=error, device=True)
    assert len(found) == len(says)
    assert all(words in line for words, line in zip(says, found, strict=True))


def test_a_gpu_that_does_not_answer_is_said_where_there_is_one() -> None:
    assert about.advice(HAS, [], None, error=0, device=False) == []
    (line,) = about.advice(HAS, [], None, error=0, device=True)
    assert line.startswith("Its GPU does not answer: restart the pod")


def test_only_rows_of_gpus_are_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "NVIDIA H200, 580.159.04, 9.0\nNVIDIA X, Y, 580.1, 12.1\nOld, 470.1, [N/A]\nFailed!\n\n"
    ran = SimpleNamespace(stdout=said, returncode=0)
    monkeypatch.setattr(about.subprocess, "run", lambda *_, **__: ran)
    assert about.gpus() == (
        about.Gpu("NVIDIA H200", "580.159.04", 90),
        about.Gpu("NVIDIA X, Y", "580.1", 121),
    )
