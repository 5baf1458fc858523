"""Which image is newer."""

from __future__ import annotations

from dataclasses import replace

from packaging.version import Version

from imagegen.model.target import Os
from imagegen.publish.tags import age, age_of, newer
from tests.support.values import DEMO, RESOLUTION


def test_an_image_says_how_new_it_is() -> None:
    for target in RESOLUTION.targets:
        assert age_of(target.promise) == age(target)


def test_versions_are_compared_as_versions() -> None:
    older, later = (replace(DEMO, torch=Version(text)) for text in ("2.9.1", "2.10.0"))
    assert newer(age(later), age(older))
    assert not newer(age(older), age(later))
    assert not newer(age(later), age(later))


def test_a_release_is_newer_than_one_of_the_same_distribution_only() -> None:
    noble, jammy, debian = (
        age(replace(DEMO, os=Os(distribution=name, version=Version(release))))
        for name, release in (("ubuntu", "24.04"), ("ubuntu", "22.04"), ("debian", "13"))
    )
    assert newer(noble, jammy)
    assert not newer(noble, debian)
    assert not newer(debian, noble)


def test_what_is_no_image_of_ours_has_no_age() -> None:
    for promise in (
        {},
        {"torch": "x"},
        {**DEMO.promise, "os": None},
        {**DEMO.promise, "cuda": "?"},
    ):
        assert age_of(promise) is None
