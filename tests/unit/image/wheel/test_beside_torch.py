"""Whether a wheel loads beside the torch that is here: for this Python, torch, CUDA and ABI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from imagegen.image.wheel.flash_attn_wheel import verify
from imagegen.image.wheel.flash_attn_wheel.packing import Torch
from imagegen.image.wheel.flash_attn_wheel.verify import Wrong
from tests.support.fake_wheels import MACHINE, TAG, cuobjdump, held, made
from tests.support.wheel_recipe import DEMO, LLAMA

pytestmark = pytest.mark.process

TORCH = Torch("2.11.0+cu130", "13.0", True)


@pytest.fixture(autouse=True)
def cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CUDA_HOME", os.fspath(tmp_path / "cuda"))
    return cuobjdump(tmp_path / "cuda")


@pytest.fixture
def torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch to load beside; the libraries need nothing of it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/torch.py").touch()
    monkeypatch.setenv("PYTHONPATH", os.fspath(tmp_path / "site"))
    monkeypatch.setattr(Torch, "here", classmethod(lambda _: TORCH))


@pytest.mark.parametrize(
    ("local", "tags", "words"),
    [
        (DEMO, f"cp39-cp39-linux_{MACHINE}", f"it is for Python cp39-cp39, and here is {TAG}"),
        (DEMO, f"{TAG}-{TAG}t-linux_{MACHINE}", f"it is for Python {TAG}-{TAG}t, and here is"),
        (DEMO, f"{TAG}-{TAG}-linux_ppc64", "it is for machine .*, and here is"),
        (DEMO.replace("2.11", "2.1"), "", "it is for torch 2.1, and here is 2.11"),
        (DEMO.replace("2.11", "2.12"), "", "it is for torch 2.12, and here is 2.11"),
        (DEMO.replace("cu130", "cu128"), "", "it is for torch's CUDA cu128, and here is cu130"),
        (DEMO.replace("true", "false"), "", r"the C\+\+11 ABI of torch False, and here is True"),
    ],
)
def test_a_wheel_for_something_else(
    local: str, tags: str, words: str, torch: None, tmp_path: Path
) -> None:
    file = made(tmp_path / "out", held(LLAMA), local, tags=tags or f"{TAG}-{TAG}-linux_{MACHINE}")
    assert verify.wheel(file, level="kernels")["promised"], "the file itself is in order"
    with pytest.raises(Wrong, match=words):
        verify.wheel(file)


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x7fELF junk"])
def test_a_library_that_is_none(
    junk: bytes, torch: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dump").write_text(held(LLAMA))
    monkeypatch.setenv("DUMP", os.fspath(tmp_path / "dump"))
    with pytest.raises(Wrong, match=r"does not load beside torch 2\.11\.0\+cu130: ImportError"):
        verify.wheel(made(tmp_path / "out", junk))


def test_where_there_is_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    file = made(tmp_path / "out", held(LLAMA))
    with pytest.raises(Wrong, match=r"cannot be loaded here: .*torch"):
        verify.wheel(file)
    cpu = SimpleNamespace(__version__="2.11.0+cpu", version=SimpleNamespace(cuda=None))
    monkeypatch.setitem(sys.modules, "torch", cpu)
    with pytest.raises(Wrong, match=r"cannot be loaded here: torch 2\.11\.0\+cpu is one for CPUs"):
        verify.wheel(file)


LIBRARY = """
#include <Python.h>
void of_another_torch(void);
static PyObject *call(PyObject *a, PyObject *b) { CALL; Py_RETURN_NONE; }
static PyMethodDef methods[] = {METHODS {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "flash_attn_2_cuda", 0, -1, methods};
PyMODINIT_FUNC PyInit_flash_attn_2_cuda(void) { return PyModule_Create(&module); }
"""
ENTRIES = ("fwd", "varlen_fwd", "bwd", "varlen_bwd", "fwd_kvcache")


@pytest.mark.parametrize(
    ("entries", "call", "words"),
    [
        (ENTRIES, "", ""),
        (ENTRIES, "of_another_torch()", r"undefined symbol: of_another_torch$"),
        (ENTRIES[1:-1], "", r"it has no fwd, fwd_kvcache$"),
    ],
)
def test_every_symbol_is_resolved(
    entries: tuple[str, ...],
    call: str,
    words: str,
    torch: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A library with a symbol of another torch is loaded lazily, and fails when it is called."""
    include = sysconfig.get_path("include")
    if not (shutil.which("cc") and Path(include, "Python.h").exists()):
        pytest.skip("no C compiler, or no headers of Python")
    source, library = tmp_path / "library.c", tmp_path / "library.so"
    methods = "".join(f'{{"{name}", call, METH_NOARGS}}, ' for name in entries)
    source.write_text(LIBRARY.replace("METHODS", methods).replace("CALL", call))
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-Wl,-z,lazy", f"-I{include}", source, "-o", library], check=True
    )
    (tmp_path / "dump").write_text(held(LLAMA))
    monkeypatch.setenv("DUMP", os.fspath(tmp_path / "dump"))
    file = made(tmp_path / "out", library.read_bytes())
    if words:
        with pytest.raises(Wrong, match=f"does not load beside torch 2.11.0.*{words}"):
            verify.wheel(file)
    else:
        assert verify.wheel(file)["level"] == "load"
