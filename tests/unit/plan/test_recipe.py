"""The key of an image: everything that decides its bytes, and nothing else."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from imagegen.build import images
from imagegen.build.options import Options
from imagegen.commands.files import render_files
from imagegen.errors import FactsError, StaleFiles
from imagegen.matrix import resolve
from imagegen.matrix.project import Project
from imagegen.matrix.resolve import Candidate
from imagegen.model.image import Image
from imagegen.model.target import minor
from imagegen.net.settings import Network
from imagegen.plan import dockerfile, image, pins
from imagegen.plan import recipe as recipe_
from tests.support.laws import for_all
from tests.support.values import DEMO, FACTS, PROJECT, RESOLUTION, ROOT

CANDIDATE = next(candidate for candidate in RESOLUTION.combinations if candidate.id == DEMO.id)


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of imagegen/image that the plan reads in place of it."""
    shutil.copytree(
        ROOT / "imagegen/image",
        tmp_path / "package/image",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    stand_in = SimpleNamespace(files=lambda _package: tmp_path / "package")
    monkeypatch.setattr(image, "resources", stand_in)
    return tmp_path / "package/image"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The project, with a copy of the locks."""
    shutil.copytree(PROJECT.locks, tmp_path / "dockerfiles/locks")
    return replace(PROJECT, folder=tmp_path / "dockerfiles")


def made(candidate: Candidate = CANDIDATE, project: Project = PROJECT, **settings: str) -> Image:
    recipe = recipe_.recipe(candidate, project)
    return image.image(recipe, dockerfile.files(recipe), project, **settings)


def test_the_same_files_are_the_same_key(copied: Path, project: Project) -> None:
    assert made().key == made(project=project).key
    assert len(made().key) == 64


def test_every_copied_file_decides_the_key(copied: Path) -> None:
    before = made().key
    files = sorted(p for p in copied.rglob("*") if p.is_file())
    assert {"with-network", "provide", "packing.py", "start"} <= {p.name for p in files}
    keys = []
    for file in files:
        text = file.read_bytes()
        file.write_bytes(text + b"\n# changed\n")
        keys.append(made().key)
        file.write_bytes(text)
    assert len({before, *keys}) == 1 + len(files)
    assert made().key == before


def test_a_new_file_and_a_new_name_change_the_key_and_a_cache_does_not(copied: Path) -> None:
    before = made().key
    (copied / "__pycache__").mkdir()
    (copied / "__pycache__/smoke.pyc").write_bytes(b"x")
    (copied / ".mypy_cache/3.11").mkdir(parents=True)
    (copied / ".mypy_cache/3.11/smoke.data.json").write_bytes(b"x")
    assert made().key == before
    (copied / "more").write_text("x")
    more = made().key
    (copied / "more").rename(copied / "other")
    assert len({before, more, made().key}) == 3


def test_every_file_of_the_lock_decides_the_key(project: Project) -> None:
    recipe = recipe_.recipe(CANDIDATE, project)
    before = made(project=project).key
    keys = []
    for part in pins.PARTS:
        file = project.locks / recipe.lock / f"{part}.txt"
        text = file.read_text()
        file.write_text(text + "# changed\n")
        keys.append(made(project=project).key)
        file.write_text(text)
    assert len({before, *keys}) == 1 + len(pins.PARTS)


def test_another_lock_does_not(project: Project) -> None:
    recipe = recipe_.recipe(CANDIDATE, project)
    before = made(project=project).key
    for folder in project.locks.iterdir():
        if folder.name not in (recipe.lock, recipe.tools_lock):
            (folder / "torch.txt").write_text("changed")
    assert made(project=project).key == before


def test_the_rendered_text_decides_the_key() -> None:
    recipe = recipe_.recipe(CANDIDATE, PROJECT)
    files = dockerfile.files(recipe)
    keys = {image.image(recipe, files, PROJECT).key}
    for name, text in files.items():
        keys.add(image.image(recipe, files | {name: text + "#"}, PROJECT).key)
    assert len(keys) == 1 + len(files)


def test_the_base_in_use_decides_the_key() -> None:
    digests = ["sha256:" + digit * 64 for digit in "123"]
    override = "imagegen/base:debian12"
    keys = {made(base_override=override, base_digest=d).key for d in digests}
    assert len(keys | {made().key}) == 4


def test_network_settings_do_not(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = project
    render_files(setup, [DEMO.id], check=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\n")
    closed = Network(
        ca=str(ca),
        pypi_index="https://pypi.example.com/simple",
        torch_index="https://torch.example.com/{backend}",
        apt_mirror="https://apt.example.com",
        registry="registry.example.com",
    )
    options = Options(base="bootstrap")
    plain = images.images(setup, None, [DEMO.id], options)
    there = images.images(setup, None, [DEMO.id], replace(options, network=closed))
    assert plain == there
    assert images.document(setup, plain, options) != images.document(
        setup, there, replace(options, network=closed)
    )


def test_no_two_targets_share_a_key() -> None:
    keys = [made(candidate).key for candidate in RESOLUTION.combinations]
    assert len(set(keys)) == len(keys)


def test_the_commit_is_told_and_decides_no_key() -> None:
    other = made(revision="d" * 40)
    assert other.key == made().key
    assert other.labels["org.opencontainers.image.revision"] == "d" * 40
    assert "org.opencontainers.image.revision" not in made().labels


def test_how_layers_are_compressed_decides_the_key() -> None:
    assert made(compression="gzip").key != made().key == made(compression="zstd").key


def test_labels_say_what_the_image_is() -> None:
    one = made(base_override="imagegen/base:debian12", base_digest="sha256:" + "1" * 64)
    assert json.loads(one.labels["imagegen.target"]) == DEMO.promise
    assert one.labels["imagegen.key"] == one.key
    assert one.labels["org.opencontainers.image.base.name"] == "imagegen/base:debian12"
    assert one.labels["org.opencontainers.image.base.digest"] == "sha256:" + "1" * 64
    assert all(one.labels.values()), "an empty label says nothing"
    assert "org.opencontainers.image.base.digest" not in made().labels  # debian has none yet


@for_all(RESOLUTION.combinations, lambda candidate: candidate.id)
def test_a_recipe_says_where_each_piece_comes_from(candidate: Candidate) -> None:
    recipe = recipe_.recipe(candidate, PROJECT)
    target = recipe.target
    cuda13 = target.cuda.major >= 13
    assert recipe.nvcc == ("base" if candidate.kind == "devel" else "wheels" if cuda13 else "apt")
    assert recipe.require_cuda == f"cuda>={target.cuda.major}.0"
    assert recipe.torch_backend == f"cu{target.cuda.major}{target.cuda.minor}"
    assert (recipe.nvcc == "wheels") == (not recipe.from_tag.startswith("nvidia/cuda:"))
    assert (PROJECT.locks / recipe.tools_lock).is_dir()
    assert recipe.tools_lock.endswith(f"-py{minor(target.python)}")
    assert recipe.lock in (recipe.tools_lock, "")
    # Whatever PyPI alone can lock is locked.
    assert bool(recipe.lock) == resolve.lockable(candidate)


@for_all(RESOLUTION.combinations, lambda candidate: candidate.id)
def test_what_pypi_lacks_says_so(candidate: Candidate) -> None:
    torch = f"torch {candidate.torch.version} for CUDA {candidate.index}"
    text = f"{torch} is on PyTorch's own index, and not on PyPI"
    unlocked = recipe_.recipe(candidate, PROJECT).unlocked
    assert unlocked.get("torch") == (None if resolve.lockable(candidate) else text)


def test_what_pypi_has_says_that_it_is_not_locked_yet(project: Project) -> None:
    """The tools come from the lock of another torch for the same Python."""
    candidate = next(
        candidate
        for candidate in RESOLUTION.combinations
        if resolve.lockable(candidate)
        and minor(candidate.torch.version) == "2.10"
        and str(candidate.os.python) == "3.12"
    )
    shutil.rmtree(project.locks / "torch2.10.0-cu128-py3.12")
    assert recipe_.recipe(candidate, project).unlocked["torch"] == NO_LOCK


NO_LOCK = "there is no lock of it here; imagegen lock makes one of what is on PyPI"


def test_an_image_that_no_list_has_is_still_nvidias() -> None:
    """Allowed without a fact about it, it is named by its tag; a plain distribution has no nvcc."""
    cuda = tuple(row.model_copy(update={"base": ()}) for row in FACTS.cuda)
    facts = FACTS.model_copy(update={"cuda": cuda})
    bold = resolve.resolve(facts, PROJECT.matrix, allow_unknown=True)
    found = [candidate for candidate in bold.combinations if not candidate.from_wheels]
    assert {candidate.kind for candidate in found} == {"devel", "slim"}
    for candidate in found:
        assert candidate.target().unverified
        recipe = recipe_.recipe(candidate, replace(PROJECT, resolution=bold))
        assert recipe.from_tag.startswith(f"nvidia/cuda:{candidate.cuda.version}-"), candidate.id
        assert recipe.from_tag.endswith(f"-{candidate.os.os.name}"), candidate.id
        assert recipe.from_digest == ""
        assert "base" in recipe.unlocked


def test_the_tools_of_an_unlocked_torch_are_those_of_the_newest(project: Project) -> None:
    """The newest by version: torch 2.9 is not newer than 2.10."""
    for folder in project.locks.iterdir():
        if not folder.name.startswith(("torch2.9.", "torch2.10.")):
            shutil.rmtree(folder)
    candidate = next(
        candidate
        for candidate in RESOLUTION.combinations
        if minor(candidate.torch.version) == "2.6" and str(candidate.os.python) == "3.12"
    )
    assert recipe_.recipe(candidate, project).tools_lock == "torch2.10.0-cu128-py3.12"


def test_a_python_without_any_lock_says_how_to_make_one(project: Project) -> None:
    for folder in project.locks.glob("*py3.11"):
        shutil.rmtree(folder)
    with pytest.raises(FactsError, match=r"no lock for Python 3\.11") as caught:
        recipe_.recipe(CANDIDATE, project)
    assert caught.value.hint == AGAIN.format(project.folder)


AGAIN = "imagegen lock --matrix {}/matrix.toml '*py3.11*'"


@pytest.mark.parametrize(
    ("packages", "differ"),
    [
        ((*PROJECT.matrix.packages, "peft", "trl>=0.9"), "peft, trl>=0.9"),
        (("accelerate", "ipywidgets", "jupyter", "transformers"), "jupyterlab"),
        (
            ("accelerate>=1", "ipywidgets", "jupyter", "jupyterlab", "transformers"),
            "accelerate, accelerate>=1",
        ),
    ],
)
def test_a_lock_for_other_packages_is_stale(
    project: Project, packages: tuple[str, ...], differ: str
) -> None:
    matrix = project.matrix.model_copy(update={"packages": packages})
    changed = replace(project, matrix=matrix)
    resolution = resolve.resolve(FACTS, matrix)
    with pytest.raises(StaleFiles) as caught:
        recipe_.recipe(CANDIDATE, replace(changed, resolution=resolution))
    file = project.locks / "torch2.11.0-cu130-py3.11/requirements.in"
    assert str(caught.value) == f"{file} and the matrix differ in {differ}"
    assert caught.value.hint == AGAIN.format(project.folder)


def test_the_order_of_the_packages_makes_no_lock_stale(project: Project) -> None:
    packages = tuple(reversed(project.matrix.packages))
    matrix = project.matrix.model_copy(update={"packages": packages})
    resolution = resolve.resolve(FACTS, matrix)
    assert recipe_.recipe(CANDIDATE, replace(project, matrix=matrix, resolution=resolution)).lock


def test_a_folder_without_what_was_asked_for_is_no_lock(project: Project) -> None:
    for file in project.locks.glob(f"*-py3.11/{pins.ASKED}"):
        file.unlink()
    with pytest.raises(FactsError, match="no lock for Python"):
        recipe_.recipe(CANDIDATE, project)


def test_what_a_distribution_does_not_have_is_not_asked_for() -> None:
    """Debian 13 dropped a package that vast.ai's launch script wants where there is one."""
    every = RESOLUTION.combinations
    found = {candidate.os.os.name: recipe_.recipe(candidate, PROJECT).apt for candidate in every}
    assert "software-properties-common" in found["debian12"]
    assert set(found["debian12"]) - set(found["debian13"]) == {"software-properties-common"}


def test_whether_a_file_can_be_run_decides_the_key(tmp_path: Path) -> None:
    file = tmp_path / "start"
    file.write_text("#!/bin/sh")
    file.chmod(0o644)
    plain = image._tree(tmp_path, "image")
    file.chmod(0o755)
    assert image._tree(tmp_path, "image") != plain
