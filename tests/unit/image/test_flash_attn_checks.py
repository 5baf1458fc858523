"""The checks of FlashAttention-3 and -4 without a GPU, on distributions made up here."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.values import RESOLUTION, ROOT

IN_IMAGE = [str(ROOT / "imagegen/image" / folder) for folder in ("pod", "checks")]
BOTH = "def flash_attn_func(): ...\ndef flash_attn_varlen_func(): ...\n"


sys.path[:0] = IN_IMAGE  # where the checks find one another, as in the image
try:
    cpu, suite = importlib.import_module("cpu"), importlib.import_module("suite")
finally:
    del sys.path[: len(IN_IMAGE)]


def promise(profile: str) -> dict[str, Any]:
    return next(t.promise for t in RESOLUTION.targets if t.profile == profile)


FOUR = promise("fa4")
THREE = FOUR | {"flash_attn": {"generation": 3, "package": "flash-attn-3", "version": "3.0.0"}}
TWO, NONE = promise("demo"), promise("plain")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages that is searched first, with a torch in it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "torch.py").write_text("__version__ = '2.11.0+cu130'\n")
    flags = sys.getdlopenflags()
    yield tmp_path
    sys.setdlopenflags(flags)
    mine = {"torch", "flash_attn", "flash_attn_interface"}
    for name in [name for name in sys.modules if name.partition(".")[0] in mine]:
        del sys.modules[name]


def installed(site: Path, name: str, version: str, files: dict[str, str]) -> None:
    """As an installer leaves a wheel: its files, and their hashes in RECORD."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    rows = []
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
        rows.append(f"{path},sha256={digest.rstrip('=')},{len(text)}")
    (info / "RECORD").write_text("\n".join([*rows, f"{info.name}/METADATA,,", ""]))


def four(site: Path) -> None:
    files = {"flash_attn/cute/__init__.py": BOTH, "flash_attn/cute/mask.py": "x = 1\n"}
    installed(site, "flash-attn-4", "4.0.0b36", files)


def two(site: Path) -> None:
    files = {"flash_attn/__init__.py": "", "flash_attn/cute/__init__.py": ""}
    installed(site, "flash_attn", "2.8.3.post2", files)


# --- a package loads ------------------------------------------------------------------------------


def test_a_package_that_loads(site: Path) -> None:
    four(site)
    said = cpu.flash_attn_package_loads(FOUR)
    assert said == "flash-attn-4 4.0.0b36: flash_attn.cute loads beside torch 2.11.0+cu130"
    installed(site, "flash_attn_3", "3.0.0+cu130", {"flash_attn_interface.py": BOTH})
    assert "flash-attn-3 3.0.0+cu130: flash_attn_interface" in cpu.flash_attn_package_loads(THREE)
    assert sys.getdlopenflags() == os.RTLD_NOW


def test_a_package_of_another_version(site: Path) -> None:
    installed(site, "flash-attn-4", "4.0.0b35", {"flash_attn/cute/__init__.py": BOTH})
    with pytest.raises(
        AssertionError, match=r"flash-attn-4: expected '4.0.0b36', found '4.0.0b35'"
    ):
        cpu.flash_attn_package_loads(FOUR)


def test_a_package_that_lost_its_functions(site: Path) -> None:
    """As after the uninstall of flash-attn 2: an empty folder is a package of no content."""
    four(site)
    (site / "flash_attn/cute/__init__.py").write_text("")
    with pytest.raises(AssertionError, match=r"flash_attn\.cute: expected flash_attn_func"):
        cpu.flash_attn_package_loads(FOUR)


# --- it stands alone ------------------------------------------------------------------------------


def test_one_owner(site: Path) -> None:
    four(site)
    said = cpu.flash_attn_has_one_owner(FOUR)
    assert said == "flash-attn-4 alone holds flash_attn; 2 files of flash_attn/cute are its own"


def test_two_owners(site: Path) -> None:
    four(site)
    two(site)
    for promised in (FOUR, TWO):
        with pytest.raises(AssertionError, match=r"found \['flash-attn', 'flash-attn-4'\]"):
            cpu.flash_attn_has_one_owner(promised)


def test_a_file_that_is_anothers_or_gone(site: Path) -> None:
    four(site)
    (site / "flash_attn/cute/mask.py").write_text("x = 2\n")
    with pytest.raises(AssertionError, match=r"found others: \['flash_attn/cute/mask.py'\]"):
        cpu.flash_attn_has_one_owner(FOUR)
    (site / "flash_attn/cute/mask.py").unlink()
    with pytest.raises(AssertionError, match=r"found others: \['flash_attn/cute/mask.py'\]"):
        cpu.flash_attn_has_one_owner(FOUR)


def test_flash_attn_2_alone(site: Path) -> None:
    two(site)
    assert cpu.flash_attn_has_one_owner(TWO).startswith("flash-attn alone holds flash_attn; 1 ")


TORCH = """
__version__ = "2.11.0+cu130"
class version: cuda = "13.0"
def compiled_with_cxx11_abi(): return True
"""
OFFICIAL = "flash_attn-2.8.3.post2%2Bcu13torch{torch}cxx11abi{abi}-cp311-cp311-linux_x86_64.whl"


def published(site: Path, name: str) -> None:
    """As uv leaves an official wheel: no local version in its metadata, its file in a note."""
    (site / "torch.py").write_text(TORCH)
    installed(
        site, "flash_attn", "2.8.3.post2", {"flash_attn/__init__.py": "__version__ = '2.8.3.post2'"}
    )
    info = site / "flash_attn-2.8.3.post2.dist-info"
    (info / "direct_url.json").write_text(json.dumps({"url": f"file:///wheels/{name}"}))


def test_an_official_wheel_says_in_its_file_name_what_it_is(site: Path) -> None:
    published(site, OFFICIAL.format(torch="2.11", abi="TRUE"))
    found = cpu.flash_attn_version(TWO)
    assert found == "2.8.3.post2+cu13torch2.11cxx11abiTRUE"


@pytest.mark.parametrize(
    ("torch", "abi", "words"), [("2.9", "TRUE", "torch"), ("2.11", "FALSE", "abi")]
)
def test_an_official_wheel_of_another_torch_or_abi_is_noticed(
    site: Path, torch: str, abi: str, words: str
) -> None:
    published(site, OFFICIAL.format(torch=torch, abi=abi))
    with pytest.raises(AssertionError, match=words):
        cpu.flash_attn_version(TWO)


def test_a_third_partys_name_tells_no_abi(site: Path) -> None:
    published(site, "flash_attn-2.8.3.post2%2Bcu130torch2.11-cp311-cp311-linux_x86_64.whl")
    assert cpu.flash_attn_version(TWO).endswith("+cu130torch2.11")


def test_a_wheel_that_says_nothing_is_refused(site: Path) -> None:
    published(site, "flash_attn-2.8.3.post2-cp311-cp311-linux_x86_64.whl")
    with pytest.raises(AssertionError, match="local version"):
        cpu.flash_attn_version(TWO)


# --- what does not apply is skipped ---------------------------------------------------------------


@pytest.mark.parametrize(
    "check", [cpu.flash_attn_version, cpu.flash_attn_loads, cpu.flash_attn_kernels]
)
def test_checks_of_generation_2_are_skipped_of_others_with_the_reason(check: Any) -> None:
    for promised, words in ((THREE, "FlashAttention-3"), (FOUR, "FlashAttention-4"), (NONE, "no ")):
        with pytest.raises(suite.Skip, match=words):
            check(promised)


def test_checks_of_the_others_are_skipped_of_generation_2_and_of_none() -> None:
    for check, promised in (
        (cpu.flash_attn_package_loads, TWO),
        (cpu.flash_attn_package_loads, NONE),
        (cpu.flash_attn_has_one_owner, THREE),  # which shares no file with flash-attn 2
        (cpu.flash_attn_has_one_owner, NONE),
    ):
        with pytest.raises(suite.Skip):
            check(promised)


def test_a_promise_without_a_generation_is_of_2() -> None:
    """As in the images that were made before there was a choice."""
    old = TWO["flash_attn"].copy()
    del old["generation"]
    assert cpu.promised_flash_attn({"flash_attn": old}) == old
