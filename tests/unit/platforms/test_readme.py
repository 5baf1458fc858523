"""What people read on a platform: true to the image, and the same whenever it is made."""

from __future__ import annotations

import re
from itertools import product

import pytest

from imagegen.model.target import FlashAttn, FlashAttnPackage, Target, minor
from imagegen.platforms import PLATFORMS, readme
from imagegen.platforms.spec import Wish
from tests.support.laws import for_all
from tests.support.values import DEMO, DIGEST, FACTS, KEY, RESOLUTION, pushed

EVERY = for_all(RESOLUTION.targets, lambda target: target.id)
PLATFORM = pytest.mark.parametrize("platform", PLATFORMS)


@for_all(product(RESOLUTION.targets, PLATFORMS), lambda pair: f"{pair[0].id} on {pair[1]}")
def test_it_says_what_is_inside_and_how_to_stop_paying(pair: tuple[Target, str]) -> None:
    target, platform = pair
    one = pushed(target)
    text = readme.text(platform, one, FACTS)
    for part in (target.id, str(target.cuda), str(target.torch), minor(target.python), DIGEST, KEY):
        assert part in text
    for package in target.packages:
        assert package in text
    assert one.refs[0] in text
    assert "**Terminate** ends all" in text or "**Destroy** ends all" in text
    assert ("Terminate" in text) == (platform == "runpod")
    assert text == readme.text(platform, one, FACTS)
    assert not re.search(r"\d{4}-\d\d-\d\d|\n\n\n|\{\{|\{%", text)
    assert len(text) < 8000


@EVERY
def test_every_card_is_where_it_belongs(target: Target) -> None:
    text = readme.text("runpod", pushed(target), FACTS)
    listed = re.search(r"has code for .*?: (.*)\.\n", text)
    assert listed
    cards = set(listed[1].split(", "))
    assert cards == {r.name for r in FACTS.gpu if r.host == "x86_64" and r.runs(target.archs)}

    def said(pattern: str) -> set[str]:
        found = re.search(pattern, text)
        return set(found[1].split(", ")) if found else set()

    held, without = target.flash_attn, said(r"It does not run on (.*?)\.\n")
    if isinstance(held, FlashAttn):
        assert without == cards - {r.name for r in FACTS.gpu if r.runs(held.archs)}
    elif held:
        majors = {r.name: r.capability // 10 for r in FACTS.gpu}
        forward = said(r"no backward pass for (.*?): there it only infers\.")
        trained = said(r"trains on compute capability (.*?)\.(?:\n| It)")
        assert trained == {f"{major}.x" for major in held.trains_on}
        for card in cards:
            assert (card in without) == (majors[card] not in held.gpus)
            assert (card in without | forward) == (majors[card] not in held.trains_on)
        assert without | forward <= cards and not without & forward


def test_what_another_generation_does_not_run_on_is_named() -> None:
    (one, *_) = (t for t in RESOLUTION.targets if isinstance(t.flash_attn, FlashAttnPackage))
    text = readme.text("vast", pushed(one), FACTS)
    assert "trains on compute capability 9.x, 10.x, 11.x, 12.x. It has no backward pass for" in text
    assert re.search(r"no backward pass for [^:]*\bA100, ", text)
    assert re.search(r"does not run on [^.]*\bT4\b", text)


def test_jupyter_on_vast_is_reached_through_ssh() -> None:
    """From outside its port is a random one, and plain HTTP."""
    text = readme.text("vast", pushed(), FACTS)
    assert "`ssh -L 8888:localhost:8888 -p PORT root@ADDRESS`" in text
    assert "http://localhost:8888" in text and "on port 8888" not in text


def test_the_source_s_revision_is_told_where_the_image_has_it() -> None:
    text = readme.text("vast", pushed(revision="f00dfeed"), FACTS)
    assert text.endswith("\nsource revision `f00dfeed`")
    assert "revision" not in readme.text("vast", pushed(), FACTS)


def test_what_only_graphql_takes_names_the_ports_of_the_template() -> None:
    spec = PLATFORMS["runpod"].spec(pushed(), FACTS, Wish())
    ports = {str(port).partition("/")[0] for port in spec.body["ports"]}  # type: ignore[attr-defined]
    assert {row["port"] for row in spec.requests["saveTemplate"]["portsConfig"]} == ports  # type: ignore[attr-defined]


def test_content_is_all_that_is_sent() -> None:
    def content(platform: str, **changes: object) -> str:
        wish = Wish(public=bool(changes.pop("public", False)))
        return PLATFORMS[platform].spec(pushed(DEMO, **changes), FACTS, wish).content

    for platform in PLATFORMS:
        same, public = content(platform), content(platform, public=True)
        other = content(platform, digest="sha256:" + "e" * 64)
        assert content(platform) == same
        assert len({same, public, other}) == 3
    vast = PLATFORMS["vast"].spec(pushed(), FACTS, Wish())
    assert re.search(r" \([0-9a-f]{12}\)$", str(vast.body["desc"]))
