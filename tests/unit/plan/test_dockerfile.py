"""The committed Dockerfiles are the golden files; and what every one of them must hold."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pytest

from imagegen.matrix.resolve import Candidate
from imagegen.model.target import FlashAttn, Target
from imagegen.plan import dockerfile
from imagegen.plan import recipe as plan
from imagegen.plan.pins import PACKAGE, PARTS
from imagegen.plan.recipe import Recipe
from imagegen.util.files import context_image
from tests.support.laws import for_all
from tests.support.values import PROJECT, RESOLUTION

SECRETS = ("ca,mode=0444", "pypi_index", "torch_index", "apt_mirror")
"""The CA is for programs of any user, such as apt's own; the addresses may hold passwords."""
STAYS = re.compile(
    r"/opt/venv/bin/python -m venv|python3 -m venv /opt/venv$"
    r"|/build/cuda-links$|/build/pod-setup$|/build/torch-constraints > \S+$"
    r"|python /wheel/flash_attn_wheel\.py "
    r"|uv pip install .* --offline "
    r"|mkdir -p |ln -s|install -|sed -i |printf |echo "
)
"""Commands that ask nothing of a network. What is not here goes through with-network."""


@dataclass(frozen=True)
class Rendered:
    recipe: Recipe
    text: str

    @property
    def target(self) -> Target:
        return self.recipe.target

    @property
    def instructions(self) -> list[str]:
        """Instructions without comments, each on one line."""
        lines = [line for line in self.text.splitlines() if line and line[0] != "#"]
        joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
        return joined.splitlines()

    def runs(self) -> Iterator[tuple[list[str], list[str]]]:
        """Of each RUN its --mount options and its commands."""
        for line in self.instructions:
            if line.startswith("RUN "):
                words = line.split()[1:]
                mounts = [word for word in words if word.startswith("--mount=")]
                rest = " ".join(word for word in words if not word.startswith("--mount="))
                yield mounts, re.split(r" && (?=(?:[^']*'[^']*')*[^']*$)", rest)  # not in quotes


def rendered(candidate: Candidate) -> Rendered:
    recipe = plan.recipe(candidate, PROJECT)
    return Rendered(recipe, dockerfile.files(recipe)[f"{recipe.target.id}/Dockerfile"])


EVERY = [rendered(candidate) for candidate in RESOLUTION.combinations]
every = for_all(EVERY, lambda one: one.target.id)


@every
def test_the_committed_files_are_the_rendering(one: Rendered) -> None:
    for name, text in dockerfile.files(one.recipe).items():
        path = PROJECT.folder / name
        assert path.is_file(), f"{path} is missing: imagegen render"
        assert path.read_text() == text, f"{path} differs: imagegen render"


def test_no_folder_is_without_target() -> None:
    assert dockerfile.strays(PROJECT.folder, (t.id for t in RESOLUTION.targets)) == []


@every
def test_no_address_no_secret_and_no_certificate_is_written_down(one: Rendered) -> None:
    assert "://" not in one.text
    assert not re.search(r"(?i)password|token|BEGIN |api.?key|\bPEM\b", one.text)
    assert not re.search(r"^(ARG|ENV) .*(CA|INDEX|MIRROR|PROXY|CERT)", one.text, re.MULTILINE)
    args = [line for line in one.instructions if line.startswith("ARG ")]
    shard = ['ARG FLASH_ATTN_SHARD=""'] * isinstance(one.target.flash_attn, FlashAttn)
    assert args == ["ARG REGISTRY=docker.io", *shard]


@every
def test_whatever_downloads_has_the_network_settings_and_leaves_nothing(one: Rendered) -> None:
    downloads = 0
    for mounts, commands in one.runs():
        for command in commands:
            if not command.startswith("/build/with-network "):
                assert STAYS.match(command), command
                continue
            downloads += 1
            for secret in SECRETS:
                assert f"--mount=type=secret,id={secret}" in mounts, command
            assert "--mount=type=bind,from=image,source=build,target=/build" in mounts
    assert downloads >= 5


@every
def test_what_is_installed_is_installed_by_hash(one: Rendered) -> None:
    for _, commands in one.runs():
        for command in commands:
            if "pip install" in command:
                assert "--require-hashes" in command or "--offline" in command, command
            if "torch-install" in command:
                assert not one.recipe.lock
                wanted = f"torch=={one.target.torch} torchvision=={one.target.torchvision}"
                assert wanted in command
    assert one.recipe.flash_attn_sha256 in one.text
    why = one.recipe.unlocked.get("torch")
    assert bool(why) == (not one.recipe.lock)
    said = re.findall(r"^# \((.*)\.\)$", one.text, re.MULTILINE)
    assert said == ([why] if why else [])


@every
def test_the_head_says_what_is_pinned_and_what_is_not(one: Rendered) -> None:
    head = one.text.partition("ARG REGISTRY")[0]
    pinned, _, rest = head.partition("# Pinned, all of it in lock.json beside this file:\n")[
        2
    ].partition("# Not pinned: ")
    assert pinned
    assert rest
    recipe = one.recipe
    assert ("the base by digest" in pinned) == bool(recipe.from_digest)
    assert (f"({recipe.from_witnesses} public files name it" in pinned) == bool(recipe.from_digest)
    assert ("Python packages by hash" in pinned) == bool(recipe.lock)
    assert ("torch by version" in pinned) == (not recipe.lock)
    assert "distribution packages" in rest
    assert ("the base" in rest) == (not recipe.from_digest)
    assert ("NVIDIA's apt packages" in rest) == (recipe.nvcc == "apt")
    assert ("what torch asks for" in rest) == (not recipe.lock)
    assert {"base", "torch"} >= set(recipe.unlocked)
    assert ("base" in recipe.unlocked) == (not recipe.from_digest)
    assert ("torch" in recipe.unlocked) == (not recipe.lock)


@every
def test_lock_json_holds_every_pin_by_where_it_is(one: Rendered) -> None:
    recipe, target = one.recipe, one.target
    text = dockerfile.files(recipe)[f"{target.id}/lock.json"]
    pins = json.loads(text)
    assert text.endswith("}\n")
    assert set(pins) == {"base", "flash_attn", "python", "unlocked"}
    assert pins["base"]["image"] == recipe.from_tag
    assert pins["base"].get("digest", "") == recipe.from_digest
    assert ("provenance" in pins["base"]) == bool(recipe.from_digest)
    steps = list(PARTS if recipe.lock else ("tools", "build", "apps"))
    if isinstance(target.flash_attn, FlashAttn):
        source = f"flash_attn-{target.flash_attn.version}.tar.gz"
        assert pins["flash_attn"] == {"source": source, "sha256": recipe.flash_attn_sha256}
    else:
        assert pins["flash_attn"] == target.promise["flash_attn"]
        steps.remove("build")
        steps += [PACKAGE] if target.flash_attn else []
    assert list(pins["python"]) == steps
    for step, pin in pins["python"].items():
        file = PROJECT.folder / pin["file"]
        assert file == PROJECT.locks / (recipe.lock or recipe.tools_lock) / f"{step}.txt"
        assert pin["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert pins["unlocked"] == recipe.unlocked
    assert all(pins["unlocked"].values())


@every
def test_the_base_is_named_by_digest_where_one_is_known(one: Rendered) -> None:
    (first,) = (line for line in one.instructions if line.startswith("FROM ${REGISTRY}/"))
    name = first.split()[1]
    if one.recipe.from_digest:
        assert name == f"${{REGISTRY}}/{one.recipe.from_tag}@{one.recipe.from_digest}"
        assert re.search(r"@sha256:[0-9a-f]{64}$", name)
    else:
        assert name == f"${{REGISTRY}}/{one.recipe.from_tag}"


@every
def test_stages_follow_one_another(one: Rendered) -> None:
    known: list[str] = []
    for line in one.instructions:
        if line.startswith("FROM "):
            words = line.split()
            local = not known and words[1].startswith("${REGISTRY}/")
            assert words[1] in [*known, "scratch"] or local
            known += words[3:]
    assert known[0] == "system"
    last = "wheel" if isinstance(one.target.flash_attn, FlashAttn) else "torch"
    assert known[-1] == last
    assert len(set(known)) == len(known)


@every
def test_what_the_container_runtime_is_told(one: Rendered) -> None:
    floor = f'NVIDIA_REQUIRE_CUDA="cuda>={one.target.cuda.major}.0"'
    assert one.text.count("NVIDIA_REQUIRE_CUDA") == 1
    assert floor in one.text
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in one.text
    start = 'ENTRYPOINT ["/usr/bin/tini", "-s", "-g", "--", "/opt/imagegen/start"]'
    assert one.instructions[-2:] == [start, 'CMD ["sleep", "infinity"]']
    assert "EXPOSE 22 8888" in one.instructions


@every
def test_what_is_copied_exists(one: Rendered) -> None:
    copies = [line.split()[1:] for line in one.instructions if line.startswith("COPY ")]
    assert copies
    for words in copies:
        options = [word for word in words if word.startswith("--")]
        *files, into = [word for word in words if not word.startswith("--")]
        if "--from=flash-attn" in options:  # the stage that only holds the wheel
            assert [*files, into] == ["/wheels", "/"]
            continue
        folder = context_image() if "--from=image" in options else PROJECT.folder
        assert into.startswith(("/opt/imagegen/", "/etc/"))
        for file in files:
            assert (folder / file).exists(), file
    for mounts, _ in one.runs():
        for mount in mounts:
            if found := re.search(r"type=bind,source=(locks/[^,]+)", mount):
                assert (PROJECT.folder / found[1]).is_dir()


def test_every_file_for_the_pod_is_copied() -> None:
    """What is in the context and is no build step's belongs into the image."""
    copied = [
        word.rstrip("/")
        for line in EVERY[0].instructions
        if line.startswith("COPY --from=image ")
        for word in line.split()[2:-1]
    ]
    context = context_image()
    files = [path.relative_to(context) for path in context.rglob("*") if path.is_file()]
    for file in files:
        if (
            file.parts[0] not in ("build", "wheel", ".dockerignore")
            and "__pycache__" not in file.parts
        ):
            assert {str(file), *map(str, file.parents)} & set(copied), f"{file} is not copied"


@every
def test_the_promise_in_the_image_is_the_target(one: Rendered) -> None:
    files = dockerfile.files(one.recipe)
    promise = files[f"{one.target.id}/target.json"]
    assert json.loads(promise) == one.target.promise
    assert promise.endswith("}\n")
    assert {name.rpartition("/")[2] for name in files} == {
        *("Dockerfile", "target.json", "lock.json"),
    }


@every
def test_the_kernels_asked_for_are_the_targets(one: Rendered) -> None:
    kernels = one.target.flash_attn
    commands = [c for _, cs in one.runs() for c in cs if "/wheel/provide" in c]
    if not isinstance(kernels, FlashAttn):
        assert commands == []
        assert "/wheels" not in one.text
        return
    (command,) = commands
    for option, values in (
        ("--archs", kernels.archs),
        ("--head-dims", kernels.head_dims),
        ("--dtypes", kernels.dtypes),
    ):
        assert f"{option} {','.join(map(str, values))} " in command
    assert command.endswith(f'--features "{",".join(kernels.features)}"')


@every
def test_nvcc_comes_from_one_place(one: Rendered) -> None:
    text = " ".join(one.instructions)
    assert ("cuda-nvcc-" in text) == (one.recipe.nvcc == "apt")
    wheels = "/locks/nvcc.txt" in text or "cuda-toolkit[" in text
    assert wheels == (one.recipe.nvcc == "wheels")
    assert ("cudnn-devel" in text) == (one.recipe.nvcc == "base")


# --- the functions --------------------------------------------------------------------------------


def test_a_variable_that_nobody_gives_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        dockerfile._template().render()


def test_nothing_is_left_of_the_template_language() -> None:
    for one in EVERY:
        assert "{{" not in one.text
        assert "{%" not in one.text
        assert one.text.endswith("]\n")
        assert not re.search(r"[ \t]+$", one.text, re.MULTILINE)


def test_rendering_is_pure() -> None:
    recipe = EVERY[0].recipe
    assert dockerfile.files(recipe) == dockerfile.files(recipe)


def test_drift_sees_what_is_missing_and_what_differs(tmp_path: Path) -> None:
    files = {"a/Dockerfile": "FROM x\n", "a/target.json": "{}\n", "b/Dockerfile": "FROM y\n"}
    assert dockerfile.drift(tmp_path, files) == [tmp_path / name for name in files]
    assert dockerfile.write(tmp_path, files) == [tmp_path / name for name in files]
    assert dockerfile.drift(tmp_path, files) == []
    assert dockerfile.write(tmp_path, files) == []
    (tmp_path / "a/Dockerfile").write_text("FROM x \n")
    (tmp_path / "b/Dockerfile").unlink()
    assert dockerfile.drift(tmp_path, files) == [
        tmp_path / "a/Dockerfile",
        tmp_path / "b/Dockerfile",
    ]
    assert len(dockerfile.write(tmp_path, files)) == 2


def test_a_folder_of_a_former_target_is_a_stray(tmp_path: Path) -> None:
    dockerfile.write(tmp_path, {"a/Dockerfile": "", "b/Dockerfile": "", "locks/x/torch.txt": ""})
    assert dockerfile.strays(tmp_path, ["a"]) == [tmp_path / "b"]
