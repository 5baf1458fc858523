"""A push: all images first, then the names; and what a failure on the way says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import pytest

from imagegen import flow, model, publish
from imagegen.engine import Docker, Manifest
from imagegen.errors import RegistryError, UsageError
from imagegen.proc import Say

from .values import DEMO, RESOLUTION, SETUP, built, report

TO = "registry.example/me/finetune"
TARGETS = [t for t in RESOLUTION.targets if t.profile == "demo"]
LAYER = model.Layer(digest="sha256:" + "1" * 64, compressed=1000, created_by="ADD rootfs")


def passed(target: model.Target = DEMO, digit: str = "d") -> model.Tested:
    return model.Tested(
        report=report("pass", "pass", "pass", of=built(target, digest="sha256:" + digit * 64))
    )


THREE = [(passed(target, str(i)), TO) for i, target in enumerate(TARGETS, start=1)]


def own(one: model.Tested, to: str = TO) -> str:
    """The name that never means anything else."""
    digest = one.report.built.digest.removeprefix("sha256:")
    return f"{to}:{one.report.built.image.target.tag}-{digest[:12]}"


def moving(one: model.Tested, to: str = TO) -> str:
    return f"{to}:{one.report.built.image.target.tag}"


class Registry:
    """An engine that has every image, in front of a registry that holds ``refs``."""

    def __init__(
        self,
        refs: dict[str, str] | None = None,
        *,
        broken: Iterable[str] = (),
        shy: bool = False,
        rewrites: str = "",
    ) -> None:
        self.refs = refs or {}
        self.broken, self.shy, self.rewrites = set(broken), shy, rewrites
        self.pushes: list[str] = []

    def push(self, digest: str, repository: str, tag: str, say: Say) -> None:
        ref = f"{repository}:{tag}"
        if ref in self.broken:
            raise RegistryError(f"{ref}: broken pipe", hint="run it again")
        say(f"sent {ref}")
        self.pushes.append(ref)
        self.refs[ref] = self.rewrites or digest

    def remote_digest(self, ref: str) -> str | None:
        if self.shy and ref not in self.refs:
            raise RegistryError(f"{ref}: denied")
        return self.refs.get(ref)

    def manifest(self, ref: str) -> Manifest:
        if f"read {ref}" in self.broken:
            raise RegistryError(f"{ref} could not be read back")
        return Manifest(digest=self.refs[ref], layers=(LAYER,))


def push(registry: Registry, *images: tuple[model.Tested, str]) -> tuple[publish.Pushed, ...]:
    return publish.push(cast(Docker, registry), images, lambda _: None)


def refused(registry: Registry, *images: tuple[model.Tested, str]) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        push(registry, *images)
    return caught.value


# --- a push ---------------------------------------------------------------------------------------


def test_every_image_is_there_before_a_name_moves() -> None:
    registry = Registry()
    done = push(registry, *THREE)
    ones = [one for one, _ in THREE]
    assert len(ones) >= 3
    assert registry.pushes == [*map(own, ones), *map(moving, ones)]
    assert [pushed.refs for pushed in done] == [(own(one), moving(one)) for one in ones]
    for one, pushed in zip(ones, done, strict=True):
        assert pushed.tested is one
        assert pushed.digest == one.report.built.digest
        assert registry.refs[own(one)] == registry.refs[moving(one)] == pushed.digest
        assert (pushed.sent, pushed.moved, pushed.layers) == (True, (), (LAYER,))


def test_what_is_there_is_left_alone() -> None:
    registry = Registry()
    push(registry, *THREE)
    registry.pushes.clear()
    done = push(registry, *THREE)
    assert registry.pushes == []
    assert not any(pushed.sent or pushed.moved for pushed in done)


def test_a_name_that_pointed_elsewhere_is_told() -> None:
    registry = Registry()
    push(registry, (passed(digit="1"), TO))
    (pushed,) = push(registry, (passed(digit="2"), TO))
    assert pushed.moved == (DEMO.tag,)
    assert registry.refs[own(passed(digit="1"))] == "sha256:" + "1" * 64, "the old one stays"
    assert registry.refs[moving(passed())] == pushed.digest
    (back,) = push(registry, (passed(digit="1"), TO))
    assert back.sent and back.moved == (DEMO.tag,)


def test_each_image_goes_to_its_own_repository() -> None:
    registry = Registry()
    first, second = passed(TARGETS[0]), passed(TARGETS[1])
    done = push(registry, (first, TO), (second, "localhost:5000/x"))
    assert [pushed.repository for pushed in done] == [TO, "localhost:5000/x"]
    assert registry.pushes[1] == own(second, "localhost:5000/x")
    assert done[1].pinned == f"{own(second, 'localhost:5000/x')}@{done[1].digest}"


def test_a_registry_that_does_not_talk_of_what_is_not_there_is_pushed_to() -> None:
    registry = Registry(shy=True)
    assert push(registry, *THREE)[0].sent


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", range(len(THREE)))
def test_an_image_that_does_not_arrive_moves_no_name(broken: int) -> None:
    registry = Registry(broken=[own(THREE[broken][0])])
    error = refused(registry, *THREE)
    assert "broken pipe" in str(error)
    assert error.hint == "run it again"
    assert not {moving(one) for one, _ in THREE} & set(registry.refs)


@pytest.mark.parametrize("broken", range(len(THREE)))
def test_a_name_that_does_not_move_says_which_ones_did(broken: int) -> None:
    ones = [one for one, _ in THREE]
    registry = Registry(broken=[moving(ones[broken])])
    error = refused(registry, *THREE)
    before = ", ".join(map(moving, ones[:broken])) or "none"
    assert str(error).endswith(f"broken pipe (tags moved before: {before})")
    assert error.hint == "run it again"
    assert registry.pushes == [*map(own, ones), *map(moving, ones[:broken])]


def test_an_image_that_cannot_be_read_back_moves_no_name() -> None:
    registry = Registry(broken=[f"read {own(THREE[-1][0])}"])
    assert "could not be read back" in str(refused(registry, *THREE))
    assert registry.pushes == [own(one) for one, _ in THREE]


def test_other_bytes_than_were_tested_are_an_error() -> None:
    registry = Registry(rewrites="sha256:" + "e" * 64)
    error = refused(registry, *THREE)
    assert "pushed sha256:1111" in str(error)
    assert "but the registry holds sha256:eeee" in str(error)
    assert "rewrites" in error.hint
    assert len(registry.pushes) == 1


def test_find_takes_only_the_tested_bytes() -> None:
    one = passed()
    registry = Registry({own(one): "sha256:" + "e" * 64})
    with pytest.raises(RegistryError, match="not the tested"):
        publish.find(cast(Docker, registry), one, TO)
    registry.refs[own(one)] = one.report.built.digest
    found = publish.find(cast(Docker, registry), one, TO)
    assert found.refs == (own(one), moving(one))
    assert not found.sent


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "repository", ["ghcr.io/me/x", "docker.io/me/x", "localhost/x", "localhost:5000/x", "h:1/x"]
)
def test_a_repository_with_a_registry_can_be_pushed_to(repository: str) -> None:
    publish.named(repository)


@pytest.mark.parametrize("repository", ["me/finetune", "finetune", "ghcr.io", "local/host.x/y", ""])
def test_one_without_would_be_docker_hubs(repository: str) -> None:
    with pytest.raises(UsageError, match=r"names no registry to push to$") as caught:
        publish.named(repository)
    assert "docker.io/" in caught.value.hint


def test_nothing_is_pushed_where_one_of_them_names_no_registry() -> None:
    registry = Registry()
    with pytest.raises(UsageError):
        push(registry, THREE[0], (THREE[1][0], "me/finetune"))
    assert not registry.pushes


def test_a_push_without_registry_is_refused_before_anything_is_built() -> None:
    publishing = SETUP.workspace.matrix.publish
    assert publishing.repository == "imagegen/finetune"
    options = flow.Options()
    engine = cast(Docker, None)  # whatever asks it fails otherwise
    with pytest.raises(UsageError, match="imagegen/finetune names no registry"):
        flow.push(SETUP, engine, [DEMO.id], options, print)
    with pytest.raises(UsageError, match="me/x names no registry"):
        flow.push(SETUP, engine, [DEMO.id], replace(options, repository="me/x"), print)
