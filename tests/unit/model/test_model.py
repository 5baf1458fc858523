"""What cannot be expressed: a push of an untested image, a template of an unpushed one."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from imagegen.errors import ChecksFailed
from imagegen.model import image as image_
from imagegen.model import pushed as pushed_
from imagegen.model import report as report_
from imagegen.model import target
from imagegen.model.pushed import Pushed
from imagegen.model.report import Status, Tested
from imagegen.platforms import PLATFORMS, needed
from imagegen.publish import push
from tests.support.values import DEMO, KEY, RESOLUTION, as_tested, built, image, pushed, report


@pytest.mark.parametrize(
    "statuses", [(), ("skip",), ("skip", "skip"), ("fail",), ("pass", "fail"), ("fail", "skip")]
)
def test_tested_takes_no_failed_empty_or_skipped_report(statuses: tuple[Status, ...]) -> None:
    with pytest.raises(ChecksFailed) as caught:
        as_tested(*statuses)
    assert DEMO.id in str(caught.value)
    assert built().image.ref in caught.value.hint
    for i, status in enumerate(statuses):
        assert (f"check {i}: detail {i}" in str(caught.value)) == (status == "fail")
    if "fail" not in statuses:
        assert "no check ran" in str(caught.value)


@given(st.lists(st.sampled_from(("pass", "fail", "skip"))))
def test_a_report_passed_when_something_passed_and_nothing_failed(statuses: list[Status]) -> None:
    one = report(*statuses)
    assert one.passed == ("pass" in statuses and "fail" not in statuses)
    if one.passed and all("pass" in statuses[level::3] for level in range(3)):
        assert Tested(built=built(), report=one, needed=needed()).report is one
    else:
        with pytest.raises(ChecksFailed):
            Tested(built=built(), report=one, needed=needed())


def test_a_report_of_less_than_a_push_asks_for_is_not_enough() -> None:
    with pytest.raises(ChecksFailed, match="was not tried for runpod and vast") as caught:
        as_tested("pass")
    assert caught.value.hint == f"imagegen test {DEMO.id}"


@pytest.mark.parametrize("needed", [(), ("smoke",), ("smoke", "gpu"), ("runpod", "vast")])
def test_a_push_cannot_ask_for_less(needed: tuple[str, ...]) -> None:
    passed = report("pass", "pass", "pass")
    with pytest.raises(ValueError, match="a push asks for smoke and the platforms' contracts"):
        Tested(built=built(), report=passed, needed=needed)
    with pytest.raises(ValueError, match="a push asks for"):
        pushed(needed=needed)


def test_a_report_of_other_bytes_is_none_of_these() -> None:
    passed = report("pass", "pass", "pass")
    with pytest.raises(ChecksFailed, match="is of other bytes"):
        Tested(built=built(digest="sha256:" + "e" * 64), report=passed, needed=needed())


def test_an_unknown_status_is_no_pass() -> None:
    one = report("pass", typing.cast(Status, "error"))
    assert not one.passed


def test_a_push_needs_what_was_tested_and_templates_need_pushed() -> None:
    assert typing.get_type_hints(push.Upload)["tested"] is Tested
    values = {f.name: getattr(pushed(), f.name) for f in dataclasses.fields(Pushed)}
    with pytest.raises(TypeError, match="report"):
        Pushed(**{name: value for name, value in values.items() if name != "report"})
    for function, name, kind in (
        (push.push, "uploads", "Sequence[Upload]"),
        *((platform.template, "pushed", "Pushed") for platform in PLATFORMS.values()),
        *((platform.spec, "pushed", "Pushed") for platform in PLATFORMS.values()),
    ):
        assert inspect.signature(function).parameters[name].annotation == kind


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "sha256:" + "e" * 64},  # of other bytes
        {"checks": ()},
        {"checks": report("pass", "pass", "fail").checks},
        {"checks": report("skip", "skip", "skip").checks},
        {"checks": report("pass").checks},  # smoke, and neither platform
    ],
)
def test_what_has_no_report_that_passed_is_not_published(changes: dict[str, typing.Any]) -> None:
    kept = dataclasses.replace(pushed().report, **changes)
    with pytest.raises(ChecksFailed, match="has no report that passed"):
        pushed(report=kept)


def test_values_are_frozen() -> None:
    modules = (image_, pushed_, report_, target)
    kinds = [
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__
    ]
    assert len(kinds) >= 10
    for kind in kinds:
        assert vars(kind)["__dataclass_params__"].frozen, kind
        assert "__slots__" in vars(kind), kind
        assert not any(str(f.type).startswith("list") for f in dataclasses.fields(kind)), kind


@pytest.mark.parametrize(
    "name",
    [
        "finetune",
        "me/finetune",
        "ghcr.io/me/finetune",
        "localhost:5000/x",
        "127.0.0.1:35000/imagegen/finetune",
        "Registry.Example/me/a-b__c.d",
    ],
)
def test_a_repository_is_a_name(name: str) -> None:
    assert re.fullmatch(target.REPOSITORY, name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "/x", "x/", "me//x", "me/X", "me/finetune:latest", "ghcr.io/me/x@sha256:0"),
        *("https://registry.example/me/x", "ghcr.io:/me/x", "ghcr.io:port/me/x", "me/x ", "me/x\n"),
        *("me/-x", "me/x-", "me/a..b", "-host/x", "me:pass@ghcr.io/x"),
    ],
)
def test_what_is_more_than_a_repositorys_name_is_none(name: str) -> None:
    assert not re.fullmatch(target.REPOSITORY, name)


@pytest.mark.parametrize(
    ("host", "good"),
    [
        *((name, True) for name in ("localhost", "ghcr.io", "10.0.0.1:5000", "A.b")),
        *(
            (name, False)
            for name in ("", "https://registry.example", "ghcr.io:", "a/b", "a:b", "u@h", ".a")
        ),
    ],
)
def test_a_host_is_a_name_and_maybe_a_port(host: str, good: bool) -> None:
    assert bool(re.fullmatch(target.HOST, host)) == good


def test_a_ref_holds_the_key_and_a_pin_the_digest() -> None:
    one = pushed()
    assert image().ref == f"imagegen/built:{DEMO.tag}-{KEY[:12]}"
    assert image(key="f" * 64).ref != image().ref
    assert one.pinned == f"{one.refs[0]}@{one.digest}"
    assert one.compressed == 2_850_000_000


def test_minor_keeps_two_digits() -> None:
    assert target.minor(Version("13.0.2")) == "13.0"
    assert target.minor(Version("12.10.1")) == "12.10"
    assert target.minor(Version("2")) == "2.0"


def test_a_promise_is_json_and_tells_targets_apart() -> None:
    promises = [json.dumps(t.promise, sort_keys=True) for t in RESOLUTION.targets]
    assert len(set(promises)) == len(promises)
    one = json.loads(json.dumps(DEMO.promise))
    assert one == DEMO.promise
    assert one["torch_cuda"] == "13.0"
    assert one["os"] == {"id": "debian", "version": "12"}
    assert one["flash_attn"]["archs"] == [80]
