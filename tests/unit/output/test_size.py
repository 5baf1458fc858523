"""What is printed and drawn of sizes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.commands import size
from imagegen.commands.size import Measured, Measures
from imagegen.errors import EngineError, UsageError
from imagegen.inventory import sizes
from imagegen.inventory.contents import Copies, Dpkg, LibraryFile, Node, Versions
from imagegen.inventory.sizes import Sized
from imagegen.model.image import Layer
from imagegen.output import size as report
from imagegen.output import size_page
from tests.unit.inventory.test_contents import INVENTORY

EVIL = "</script><script>alert(1)</script><!--"


def sized(name: str, *layers: tuple[str, int]) -> Sized:
    rows = (
        Layer(digest=f"sha256:{d}", compressed=n, created_by=f"RUN make {d}", unpacked=3 * n)
        for d, n in layers
    )
    return Sized(name=name, digest=f"sha256:{name}", layers=tuple(rows))


ONE = Measured(
    sized=sized("one", ("base", 100_000_000), ("more", 1_200_000_000)), inventory=INVENTORY
)
TWO = Measured(
    sized=sized("two", ("base", 100_000_000), ("own", 5_000_000)),
    inventory=None,
    unseen="it has no python3",
)


def measures(*images: Measured, missing: tuple[str, ...] = ()) -> Measures:
    shared = sizes.sharing([one.sized for one in images])
    return Measures(images=images, sharing=shared, missing=missing)


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert err == ""
    return out


# --- text and JSON --------------------------------------------------------------------------------


def test_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(measures(ONE, TWO), "text", 1)
    assert (
        printed(capsys)
        == """\
one: 1.30 GB compressed, 3.90 GB unpacked, 2 layers
  sha256:one

  COMPRESSED  UNPACKED  LAYER MADE BY
  1.20 GB     3.60 GB   RUN make more

  SIZE    PACKAGE (OF 5)                  FROM
  1.0 kB  libstdc++6 1:12.2.0-14+deb12u1  apt

  10 B could be saved by keeping one copy of each file over 1 MB
       10 B  /a
             /b
             /c

  libraries with the same name and different bytes
        1 B  /a/libz.so.1
        2 B  /b/libz.so.1


two: 105.0 MB compressed, 315.0 MB unpacked, 2 layers
  sha256:two

  COMPRESSED  UNPACKED  LAYER MADE BY
  100.0 MB    300.0 MB  RUN make base

  what is inside is unknown: it has no python3


two costs 5.0 MB if you have one, 105.0 MB otherwise

together 1.41 GB, or 1.30 GB with each layer stored once; pulled one after another, the least first:

  COSTS     IMAGE
  105.0 MB  two
  1.20 GB   one
"""
    )


def test_two_that_share_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(TWO, sized=sized("other", ("x", 7)))
    report.show(measures(ONE, other), "text", 5)
    assert "no two images share a layer" in printed(capsys)
    report.show(measures(ONE), "text", 5)
    assert "together" not in printed(capsys)


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(measures(ONE, TWO, missing=("three",)), "json", 1)
    found = json.loads(printed(capsys))
    assert found["missing"] == ["three"]
    one, two = found["images"]
    assert (one["compressed_bytes"], one["unpacked_bytes"]) == (1_300_000_000, 3_900_000_000)
    assert [row["compressed"] for row in one["layers"]] == [100_000_000, 1_200_000_000]
    assert one["inventory"]["python"][1]["bytes"] is None
    assert two["inventory"] is None
    assert found["sharing"]["pairs"][0] == {
        "want": "two", "have": "one", "cost": 5_000_000, "shared": 100_000_000,
    }  # fmt: skip


def test_what_is_not_here_is_named_with_the_next_step() -> None:
    size.complete(measures(ONE))
    with pytest.raises(EngineError, match="as they are now: a, b, c and 2 more") as caught:
        size.complete(measures(ONE, missing=("a", "b", "c", "d", "e")))
    assert caught.value.hint.startswith("imagegen build a,")


def test_a_page_that_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    assert report.writable(None) is None
    assert report.writable(tmp_path / "x.html") == tmp_path / "x.html"
    for file in (tmp_path / "none/x.html", tmp_path):
        with pytest.raises(UsageError, match=re.escape(str(file))):
            report.writable(file)


# --- the page -------------------------------------------------------------------------------------


class Read(HTMLParser):
    """The page's elements, what it refers to, and the data in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.refers: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.refers += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def evil() -> Measured:
    """An image in which everything that has a name tries to break out of the page."""
    node = Node(name=EVIL, bytes=9, kind="other", children=())
    inside = replace(
        INVENTORY,
        dpkg=(Dpkg(name=EVIL, version=EVIL, arch=EVIL, bytes=10**9, source=EVIL),),
        copies=(Copies(bytes=1, sha256="0" * 64, paths=(EVIL, EVIL)),),
        versions=(Versions(soname=EVIL, places=(LibraryFile(path=EVIL, bytes=1),) * 2),),
        tree=Node(name="/", bytes=9, kind="other", children=(node,)),
    )
    layer = Layer(digest=EVIL, compressed=1, created_by=EVIL)
    return Measured(sized=Sized(name=EVIL, digest=EVIL, layers=(layer,)), inventory=inside)


def test_no_name_breaks_out_of_the_page() -> None:
    plain = Read(size_page.page(measures(ONE, TWO)))
    text = size_page.page(measures(evil(), replace(evil(), inventory=None, unseen=EVIL)))
    assert text.count("<script") == text.count("</script>") == 2
    assert EVIL not in text
    assert "<!--" not in text
    found = Read(text)
    assert set(found.tags) <= set(plain.tags)
    trees = json.loads(next(word for word in found.words if word.startswith("[")))
    assert trees[0]["c"][0]["n"] == EVIL  # all of it, as data
    assert any(EVIL in word for word in found.words if not word.startswith("["))


def test_the_page_asks_for_nothing() -> None:
    text = size_page.page(measures(ONE, TWO))
    assert Read(text).refers == ["data:,"]
    assert "://" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_the_page_says_what_the_text_says() -> None:
    words = " ".join(" ".join(Read(size_page.page(measures(ONE, TWO))).words).split())
    for said in ("1.30 GB", "RUN make more", "libstdc++6", "libz.so.1", "it has no python3"):
        assert said in words
    assert "5.0 MB two if you have one" in words
    alone = size_page.page(measures(ONE))
    assert 'id="shared"' not in alone


def test_bars_are_as_long_as_their_bytes() -> None:
    text = size_page.page(measures(ONE, TWO))
    shared = text[text.index('id="shared"') : text.index('class="image"')]
    widths = [float(word) for word in re.findall(r"width: ([\d.]+)%", shared)]
    longest = 1_300_000_000
    assert widths == pytest.approx(
        [100 * n / longest for n in (1_200_000_000, 100_000_000, 5_000_000, 100_000_000)], abs=1e-3
    )


def test_bytes_shared_with_many_are_one_part() -> None:
    images = [
        replace(TWO, sized=sized(f"image {i}", ("all", 1000), (f"own{i}", 1), (f"p{i // 2}", 10)))
        for i in range(6)
    ]
    text = size_page.page(measures(*images))
    assert "shared with 1 other</span>" in text
    assert "shared with 3 or more others</span>" in text
    assert "shared with 5" not in text
    widths = re.findall(r'class="d(\d)" style="width: ([\d.]+)%', text)
    assert widths == [("0", "0.099"), ("1", "0.989"), ("3", "98.912")] * 6


# --- folders that are shown as one ----------------------------------------------------------------

NAMES = st.text("ab", min_size=1, max_size=2) | st.just("(other)")
KINDS = st.sampled_from(["cuda", "torch", "python", "apt", "other"])


def leaf(name: str, count: int, kind: Any) -> Node:
    return Node(name=name, bytes=count, kind=kind, children=())


def folder(name: str, kind: Any, children: list[Node]) -> Node:
    whole = sum(child.bytes for child in children)
    return Node(name=name, bytes=whole, kind=kind, children=tuple(children))


TREES = st.recursive(
    st.builds(leaf, NAMES, st.sampled_from([0, 1, 10, 1000, 100_000]), KINDS),
    lambda inner: st.builds(folder, NAMES, KINDS, st.lists(inner, min_size=1, max_size=4)),
    max_leaves=25,
)


@given(TREES)
def test_joined_folders_keep_every_byte(tree: Node) -> None:
    found = size_page.chained(tree)
    assert found.bytes == tree.bytes

    def check(node: Node) -> None:
        if node.children:
            assert sum(child.bytes for child in node.children) == node.bytes
        for child in node.children:
            # nothing is left to join
            assert not (
                child.children and node.bytes and child.bytes >= size_page.CHAIN * node.bytes
            )
            check(child)

    check(found)


def test_a_folder_in_a_folder_is_one_with_both_names() -> None:
    inner = folder("site-packages", "torch", [leaf("torch", 900, "torch"), leaf("x", 90, "apt")])
    tree = folder("/", "torch", [folder("opt", "torch", [inner, leaf("(other)", 1, "apt")])])
    found = size_page.chained(tree)
    assert found.name == "/opt/site-packages"
    assert [(child.name, child.bytes) for child in found.children] == [
        ("torch", 900), ("x", 90), ("(other)", 1),
    ]  # fmt: skip
