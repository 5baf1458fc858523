"""What images take and share: laws over any layers."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.engine import archive
from imagegen.errors import EngineError
from imagegen.inventory import layers, sizes
from imagegen.inventory.sizes import Sized
from imagegen.model.image import Layer

# A digest stands for its bytes: the same digest has the same size, wherever it is.
BYTES = {f"sha256:{i:064x}": i * i * 1000 + 7 for i in range(12)}


def layer(digest: str, unpacked: int | None = None) -> Layer:
    return Layer(
        digest=digest, compressed=BYTES[digest], created_by=f"RUN {digest[-2:]}", unpacked=unpacked
    )


@st.composite
def selections(draw: st.DrawFn) -> list[Sized]:
    stacks = draw(st.lists(st.lists(st.sampled_from(sorted(BYTES)), max_size=9), max_size=6))
    return [
        Sized(name=f"image {i}", digest=f"sha256:{i}", layers=tuple(map(layer, stack)))
        for i, stack in enumerate(stacks)
    ]


# --- sharing --------------------------------------------------------------------------------------


@given(selections())
def test_what_is_kept_once_is_every_layer_once(images: list[Sized]) -> None:
    found = sizes.sharing(images)
    held = {row.digest for one in images for row in one.layers}
    assert found.once == sum(BYTES[digest] for digest in held)
    assert found.once <= found.total == sum(one.compressed for one in images)


@given(selections())
def test_the_order_names_every_image_once_and_costs_what_is_kept(images: list[Sized]) -> None:
    found = sizes.sharing(images)
    assert sorted(name for name, _ in found.order) == [one.name for one in images]
    assert sum(cost for _, cost in found.order) == found.once


@given(selections())
def test_no_other_image_would_cost_less_next(images: list[Sized]) -> None:
    by_name = {one.name: one for one in images}
    done: list[Sized] = []
    for name, cost in sizes.sharing(images).order:
        left = [one for one in images if one not in done]
        assert cost == min(sizes.cost(one, done) for one in left)
        done.append(by_name[name])


@given(selections())
def test_a_pair_costs_and_spares_the_whole(images: list[Sized]) -> None:
    found = sizes.sharing(images)
    by_name = {one.name: one for one in images}
    pairs = {(pair.want, pair.have): pair for pair in found.pairs}
    assert len(pairs) == len(found.pairs) == len(images) * (len(images) - 1)
    for (want, have), pair in pairs.items():
        assert pair.cost + pair.shared == by_name[want].compressed
        assert pair.cost >= 0
        assert pair.shared == pairs[have, want].shared  # what two share, both share


@given(selections())
def test_shares_by_number_of_others_add_up(images: list[Sized]) -> None:
    found = sizes.sharing(images)
    for one in images:
        assert sum(found.degrees[one.name]) == one.compressed
        assert len(found.degrees[one.name]) == len(images)
    # A layer that is shared with k others is in k + 1 images: divided among them it counts once.
    parts = (n / (k + 1) for row in found.degrees.values() for k, n in enumerate(row))
    assert sum(parts) == pytest.approx(found.once)


@given(selections(), st.randoms())
def test_the_order_of_asking_changes_nothing(images: list[Sized], random: Any) -> None:
    others = list(images)
    random.shuffle(others)
    assert sizes.sharing(images) == sizes.sharing(others)


def test_a_layer_that_comes_twice_counts_once() -> None:
    (digest, size) = list(BYTES.items())[-1]
    one = Sized(name="x", digest="", layers=(layer(digest, 5), layer(digest, 6)))
    assert (one.compressed, one.unpacked) == (size, 11)
    unknown = Sized(name="x", digest="", layers=(layer(digest), layer(digest, 6)))
    assert unknown.unpacked is None


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("RUN /bin/bash -euo pipefail -c /build/with-network /build/x  y # buildkit", "/build/x y"),
        ("COPY pod/ /opt/ # buildkit", "COPY pod/ /opt/"),
        ("mmdebstrap", "mmdebstrap"),
        ("RUN echo \x1b[31m", "RUN echo \ufffd[31m"),
        ("", ""),
    ],
)
def test_an_instruction_is_shown_by_what_is_its_own(command: str, shown: str) -> None:
    assert sizes.made_by(Layer(digest="", compressed=1, created_by=command)) == shown


# --- the budget -----------------------------------------------------------------------------------


def test_a_budget_is_passed_by_one_byte() -> None:
    rows = [Layer(digest=f"{i}", compressed=i * 10**9, created_by=f"RUN {i}") for i in range(1, 5)]
    one = Sized(name="target", digest="", layers=tuple(rows))
    assert sizes.over(one, 10.0) == ""
    assert sizes.over(one, 9.999999999).splitlines() == [
        "target takes 10.000 GB compressed, its budget is 10 GB; the largest:",
        "  4.000 GB  RUN 4",
        "  3.000 GB  RUN 3",
        "  2.000 GB  RUN 2",
    ]


# --- an image's archive ---------------------------------------------------------------------------


def blob(name: str) -> str:
    return f"blobs/sha256/{name}"


def packed(files: dict[str, bytes], step: int = 1000) -> Iterator[bytes]:
    """The files as the engine streams them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        folder = tarfile.TarInfo("blobs")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = out.getvalue()
    return (data[at : at + step] for at in range(0, len(data), step))


HISTORY = [
    {"created_by": "base"},
    {"created_by": "ENV x", "empty_layer": True},
    {"created_by": "RUN y"},
]
FILES = {
    blob("aa"): b"\x1f\x8b" + b"a" * 5000,
    blob("bb"): b"{" + b"b" * 300,
    blob("cc"): json.dumps({"history": HISTORY}).encode(),
    "index.json": b"{}",
    "manifest.json": json.dumps(
        [{"Config": blob("cc"), "Layers": [blob("aa"), blob("bb")]}]
    ).encode(),
}


@pytest.mark.parametrize("step", [1, 511, 512, 100_000])
def test_layers_are_read_from_the_archive(step: int) -> None:
    assert archive.layers(packed(FILES, step), [900, 0, 30]) == (
        Layer(digest="sha256:aa", compressed=5002, created_by="base", unpacked=900),
        Layer(digest="sha256:bb", compressed=301, created_by="RUN y", unpacked=30),
    )


@pytest.mark.parametrize("steps", [[], [1, 2]])
def test_a_history_of_other_layers_tells_nothing(steps: list[int]) -> None:
    found = archive.layers(packed(FILES), steps)
    assert [(row.compressed, row.created_by, row.unpacked) for row in found] == [
        (5002, "", None),
        (301, "", None),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"manifest.json": b"[]"},
        {"manifest.json": b"[{}]"},
        {"manifest.json": b"{"},
        {"manifest.json": b'[{"Config": "blobs/sha256/aa", "Layers": []}]'},
        {"manifest.json": b'[{"Config": "blobs/sha256/cc", "Layers": ["blobs/sha256/dd"]}]'},
        {blob("cc"): b'{"history": 7}'},
    ],
)
def test_an_archive_that_says_something_else_is_refused(change: dict[str, bytes]) -> None:
    with pytest.raises(EngineError, match="archive"):
        archive.layers(packed(FILES | change), [])


@given(st.integers(0, 12_000))
def test_an_archive_that_breaks_off_is_refused(length: int) -> None:
    whole = b"".join(packed(FILES))
    # the manifest is the last file: without its last block there is none
    end = whole.index(FILES["manifest.json"]) + len(FILES["manifest.json"])
    with pytest.raises(EngineError, match="archive"):
        archive.layers([whole[: min(length, end - 1)]], [])


# --- what is kept ---------------------------------------------------------------------------------


def test_layers_are_kept_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "sizes/x.json"
    assert layers.kept(file) is None
    rows = tuple(layer(digest, 5) for digest in BYTES)
    layers.keep(file, rows)
    assert layers.kept(file) == rows
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("text", ["", "{", "7", "[7]", '[{"digest": "x"}]', '[{"nonsense": 1}]'])
def test_what_cannot_be_read_was_not_kept(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    assert layers.kept(tmp_path / "x.json") is None
