"""Whether a wheel is what its name promises: whole, for this torch, with just those kernels."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imagegen.image.wheel.flash_attn_wheel import verify
from imagegen.image.wheel.flash_attn_wheel.selection import FEATURES, Selection
from imagegen.image.wheel.flash_attn_wheel.verify import Wrong, functions
from tests.support.fake_wheels import REAL, TAG, cuobjdump, dump, held, made, named
from tests.support.wheel_recipe import DEMO, FOLDER, FULL, LLAMA, preset

pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CUDA_HOME", os.fspath(tmp_path / "cuda"))
    return cuobjdump(tmp_path / "cuda")


def test_real_names_of_kernels(tmp_path: Path) -> None:
    library = tmp_path / "library.so"
    library.write_text(dump(80, REAL) + dump(90, list(REAL)[:1]) + dump(120, []))
    found = functions(library)
    assert list(found) == [80, 90, 120]
    words = [said.split() for said in REAL.values() if said]
    assert found[80] == {(kind, 128, "bf16", flags) for kind, flags in words}
    assert found[90] == {("fwd", 128, "bf16", "00000100")}
    assert found[120] == set()
    assert all(len(flags) == len(verify.PARAMETERS[kind]) for kind, flags in words)


def test_names_of_other_kernels(tmp_path: Path) -> None:
    library = tmp_path / "library.so"
    library.write_text(dump(80, [named("bwd", 64, "fp16", "dropout"), named("fwd", 96, "bf16")]))
    assert functions(library)[80] == {
        ("bwd", 64, "fp16", "1000000"),
        ("fwd", 96, "bf16", "00000000"),
    }


# --- wheels ---------------------------------------------------------------------------------------


def of(selection: Selection) -> str:
    return selection.local_version("2.11", "13.0", True)


@pytest.mark.parametrize(
    "selection",
    [
        LLAMA,
        preset("llama"),
        preset("gpt2"),
        preset("inference"),
        replace(preset("full"), archs=(80, 90, 120)),
    ],
)
def test_a_wheel_that_keeps_its_promise(selection: Selection, tmp_path: Path) -> None:
    file = made(tmp_path / "out", held(selection), of(selection))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    found = verify.wheel(file, sha256=digest, level="kernels")
    kernels = found.pop("kernels")
    assert isinstance(kernels, dict) and tuple(kernels) == selection.archs
    assert found == {
        "wheel": file.name,
        "sha256": digest,
        "bytes": file.stat().st_size,
        "promised": True,
        "level": "kernels",
    }


@pytest.mark.parametrize(
    ("library", "words"),
    [
        ("", r"it has code for sm \[\], and promises \[80\]"),
        (held(replace(LLAMA, archs=(90,))), r"it has code for sm \[90\], and promises \[80\]"),
        (held(replace(LLAMA, archs=(80, 90))), r"code for sm \[80, 90\], and promises \[80\]"),
        (dump(80, []), r"for sm_80 it lacks bwd_hdim128_bf16, .* and 2 more"),
        (held(LLAMA, lacks="bwd_hdim128_bf16"), r"for sm_80 it lacks bwd_hdim128_bf16$"),
        (held(LLAMA, lacks="fwd_hdim128_bf16_causal"), r"it lacks fwd_hdim128_bf16_causal$"),
        (held(LLAMA, lacks="fwd_split_hdim128_bf16"), r"it lacks fwd_split_hdim128_bf16$"),
        (held(replace(LLAMA, features=())), r"it lacks bwd_hdim128_bf16, bwd_hdim128_bf16_causal$"),
        (held(replace(LLAMA, head_dims=(64, 128))), r"it has bwd_hdim64_bf16, .* not promise"),
        (held(replace(LLAMA, head_dims=(64,))), r"it lacks bwd_hdim128_bf16, "),
        (held(replace(LLAMA, dtypes=("fp16", "bf16"))), r"it has bwd_hdim128_fp16, .* not promise"),
    ],
)
def test_kernels_that_are_not_those_promised(library: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(Wrong, match=words):
        verify.wheel(made(tmp_path / "out", library), level="kernels")


@pytest.mark.parametrize("feature", [name for name in FEATURES if name != "backward"])
def test_a_feature_unlike_its_promise(feature: str, tmp_path: Path) -> None:
    """Left out of the kernels and not of the name, a call would be answered wrongly."""
    rest = tuple(name for name in FEATURES if name != feature)
    without = replace(FULL, head_dims=(64,), features=rest)
    with_it = replace(without, features=tuple(FEATURES))
    first = "fwd_split" if feature == "uneven_k" else "bwd"
    what = f"^for sm_80 {first}_hdim64_bf16"
    with pytest.raises(Wrong, match=f"{what} lacks {feature}, unlike its promise$"):
        verify.wheel(made(tmp_path / "a", held(without), of(with_it)), level="kernels")
    with pytest.raises(Wrong, match=f"{what} has {feature}, unlike its promise$"):
        verify.wheel(made(tmp_path / "b", held(with_it), of(without)), level="kernels")


GPT2 = preset("gpt2")
BOTH = replace(GPT2, head_dims=(64, 128))


@pytest.mark.parametrize(
    ("promised", "library", "words"),
    [
        (  # its forward has dropout, and its backward would leave it out
            GPT2,
            held(replace(GPT2, features=("dropout",)))
            + held(replace(GPT2, features=("backward",))),
            "bwd_hdim64_bf16 lacks dropout",
        ),
        (
            BOTH,
            held(GPT2) + held(replace(BOTH, head_dims=(128,), features=("backward",))),
            "bwd_hdim128_bf16 lacks dropout",
        ),
        (
            GPT2,
            held(replace(GPT2, dtypes=("bf16",)))
            + held(replace(GPT2, dtypes=("fp16",), features=("backward",))),
            "bwd_hdim64_fp16 lacks dropout",
        ),
        (
            BOTH,
            held(GPT2)
            + held(replace(BOTH, head_dims=(128,), features=("dropout", "backward")))
            + dump(80, [named("fwd", 128, "fp16", "softcap")]),
            "fwd_hdim128_fp16 has softcap",
        ),
    ],
)
def test_a_feature_that_some_kernels_lack(
    promised: Selection, library: str, words: str, tmp_path: Path
) -> None:
    """What others of them have is no promise kept."""
    with pytest.raises(Wrong, match=f"^for sm_80 {words}, unlike its promise$"):
        verify.wheel(made(tmp_path / "out", library, of(promised)), level="kernels")


def test_a_kernel_that_one_architecture_lacks(tmp_path: Path) -> None:
    both = replace(LLAMA, archs=(80, 90))
    library = held(LLAMA) + held(replace(LLAMA, archs=(90,)), lacks="bwd_hdim128_bf16_causal")
    with pytest.raises(Wrong, match=r"^for sm_90 it lacks bwd_hdim128_bf16_causal$"):
        verify.wheel(made(tmp_path / "out", library, of(both)), level="kernels")


@pytest.mark.parametrize("local", ["", "cu12torch2.8cxx11abiTRUE", "cu130torch2.11"])
def test_wheels_of_others_promise_no_kernels(local: str, tmp_path: Path) -> None:
    """The official ones have a local version in their names only."""
    file = made(tmp_path / "out", dump(80, REAL), local, metadata="2.8.3.post2")
    assert verify.wheel(file, level="kernels")["promised"] is False


# --- what was asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize("local", [DEMO, "", "cu12torch2.8cxx11abiTRUE"])
def test_kernels_that_are_not_those_asked_for(local: str, tmp_path: Path) -> None:
    """Whatever its own name promises, or does not."""
    file = made(
        tmp_path / "out", held(LLAMA), local, metadata="" if local == DEMO else "2.8.3.post2"
    )
    found = verify.wheel(file, level="kernels", version="2.8.3.post2", wanted=LLAMA)
    assert found["promised"] is True
    for wanted, words in {
        preset("llama"): "it lacks bwd_hdim128_fp16, ",
        replace(LLAMA, archs=(90,)): r"code for sm \[80\], and promises \[90\]",
        replace(LLAMA, features=()): "it has bwd_hdim128_bf16, ",
        replace(LLAMA, features=("dropout", "backward")): "bwd_hdim128_bf16 lacks dropout",
    }.items():
        with pytest.raises(Wrong, match=words):
            verify.wheel(file, level="kernels", wanted=wanted)


@pytest.mark.parametrize("level", ["contents", "kernels"])
def test_another_release_than_was_asked_for(level: str, tmp_path: Path) -> None:
    file = made(tmp_path / "out", held(LLAMA))
    with pytest.raises(
        Wrong, match=r"^it is flash-attn 2\.8\.3\.post2, and 2\.8\.3 was asked for$"
    ):
        verify.wheel(file, level=level, version="2.8.3")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--version", "2.8.3.post2", "--archs", "80", "--preset", "llama", "--dtypes", "bf16"),
            "",
        ),
        ((), ""),
        (("--version", "2.7.4"), "it is flash-attn 2.8.3.post2, and 2.7.4 was asked for"),
        (("--archs", "80", "--preset", "llama"), "for sm_80 it lacks bwd_hdim128_fp16, "),
        (
            ("--archs", "80,90", "--head-dims", "128"),
            "it has code for sm [80], and promises [80, 90",
        ),
        (("--archs", "80", "--head-dims", "100"), "head_dims: [100] not in"),
    ],
)
def test_the_command_line_says_what_is_asked_for(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    file = made(tmp_path / "out", held(LLAMA))
    done = subprocess.run(
        [sys.executable, "-m", "flash_attn_wheel", "verify", file, "--level", "kernels", *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.fspath(FOLDER)},
    )
    assert said in done.stderr and "Traceback" not in done.stderr
    assert (done.returncode == 0) == (not said)
    if not said:
        assert json.loads(done.stdout)["promised"] is True


# --- the file -------------------------------------------------------------------------------------


def test_another_hash(tmp_path: Path) -> None:
    with pytest.raises(Wrong, match=r"its sha256 is [0-9a-f]{64}, expected 00*: a damaged or"):
        verify.wheel(made(tmp_path / "out", held(LLAMA)), sha256="0" * 64, level="contents")


@pytest.mark.parametrize(
    "name", ["flash_attn.whl", "flash_attn-2.8.3.tar.gz", "torch-2.0-a-b-c.whl"]
)
def test_a_name_that_is_no_wheels(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(Wrong, match="not the file name of a flash-attn wheel"):
        verify.wheel(tmp_path / name)
    with pytest.raises(Wrong, match="no such file"):
        verify.wheel(tmp_path / f"flash_attn-2.8.3-{TAG}-{TAG}-linux_x86_64.whl")


@pytest.mark.parametrize("left", [0, 1, 100, 0.5, -1])
def test_a_truncated_download(left: float, tmp_path: Path) -> None:
    file = made(tmp_path / "out", held(LLAMA))
    size = file.stat().st_size
    os.truncate(file, int(size + left if left < 0 else size * left if left < 1 else left))
    with pytest.raises(Wrong, match="not a whole wheel"):
        verify.wheel(file, level="contents")


def test_any_byte_that_is_damaged_shows(tmp_path: Path) -> None:
    """Or it decides nothing, as the last bits do that fill a byte."""
    file = made(tmp_path / "out", held(LLAMA))
    with zipfile.ZipFile(file) as archive:
        one = archive.getinfo("flash_attn/__init__.py")
        text = archive.read(one)
    whole, shown = file.read_bytes(), 0
    start = one.header_offset + 30 + len(one.filename)
    for at in range(start, start + one.compress_size):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            verify.wheel(file, level="contents")
        except Wrong as wrong:
            shown += "not a whole wheel" in str(wrong)
        else:
            with zipfile.ZipFile(file) as archive:
                assert archive.read(one) == text
    assert shown > 0.9 * one.compress_size


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"put": {"METADATA": None}}, "it has no METADATA"),
        ({"put": {"RECORD": None}}, "not a whole wheel: .*RECORD"),
        ({"put": {"RECORD": "one,two\n"}}, "not a whole wheel"),
        ({"put": {"RECORD": "flash_attn/gone.py,sha256=x,1\n"}}, "not a whole wheel: .*gone"),
        (
            {"put": {"__init__.py": "evil"}},
            "__init__.py in it has another hash than its",
        ),
        ({"put": {"evil.pth": "import x"}}, r"its RECORD has no hash of evil\.pth"),
        ({"put": {"RECORD": ""}}, "its RECORD has no hash of flash_attn"),
        ({"put": {"gnu.so": "evil"}}, r"flash_attn_2_cuda\..*so in it has another hash than its"),
        ({"metadata": "2.8.3.post2"}, rf"its METADATA says version 2.8.3.post2, its name .*{DEMO}"),
        ({"metadata": "2.8.3+x"}, r"its METADATA says version 2.8.3\+x"),
    ],
)
def test_a_wheel_whose_parts_do_not_agree(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(Wrong, match=words):
        verify.wheel(made(tmp_path / "out", held(LLAMA), **changes), level="contents")


@pytest.mark.parametrize("names", [(), ("", ".abi3")])
def test_a_wheel_with_no_library_or_two(names: tuple[str, ...], tmp_path: Path) -> None:
    libraries = [f"flash_attn_2_cuda{name}.so" for name in names]
    file = made(tmp_path / "out", held(LLAMA), libraries=libraries)
    words = f"it holds {len(names)} libraries flash_attn_2_cuda, expected one"
    with pytest.raises(Wrong, match=words):
        verify.wheel(file, level="contents")


def test_without_cuobjdump_nothing_is_said_about_kernels(
    cuda: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = made(tmp_path / "out", held(LLAMA))
    cuda.unlink()
    with pytest.raises(Wrong, match="there is no cuobjdump, neither CUDA's nor Triton's"):
        verify.wheel(file, level="kernels")
    assert not verify.wheel(file, level="contents")["promised"]
    tritons = tmp_path / "triton/bin/cuobjdump"
    tritons.parent.mkdir(parents=True)
    tritons.touch()
    listed = [SimpleNamespace(name=name, locate=lambda: tritons) for name in ("x", "cuobjdump")]
    monkeypatch.setattr(metadata, "files", lambda name: listed if name == "triton" else [])
    assert verify.cuobjdump() == os.fspath(tritons)


def test_a_library_that_cuobjdump_cannot_read(cuda: Path, tmp_path: Path) -> None:
    cuda.write_text("#!/bin/sh\necho 'cuobjdump fatal: not an ELF file' >&2; exit 255\n")
    with pytest.raises(Wrong, match="cuobjdump cannot read its library: cuobjdump fatal: not an"):
        verify.wheel(made(tmp_path / "out", "junk"), level="kernels")
