"""What images take, asked of real ones; and the page about it, used in a real browser."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from imagegen.build import images
from imagegen.build.options import Options
from imagegen.cli.app import app
from imagegen.commands.size import Measures, complete, measure
from imagegen.engine.docker import Docker
from imagegen.errors import BuildError, EngineError
from imagegen.inventory import contents
from imagegen.inventory.contents import Node
from imagegen.inventory.layers import kept, within
from imagegen.matrix.project import Project
from imagegen.model.image import Built
from imagegen.output import size_page
from imagegen.util import process
from tests.engine.conftest import NETWORK
from tests.engine.stand_ins.browser import ENTER, Browser, container, eventually
from tests.support import tiny_image

ESCAPE = "\ue00c"
# A copy of a large file, a library of a known name with other bytes, and a package whose name would
# break out of the page.
PLANTED = """
RUN mkdir /opt/planted && cp /usr/bin/git /opt/planted/libcopy.so && \\
    ln /opt/planted/libcopy.so /opt/planted/libcopy.so.linked && \\
    echo no library > /opt/planted/libz.so.1.9 && \\
    touch "$(printf '/opt/planted/\\\\377')" && \\
    mkdir /opt/venv/lib/python3.11/site-packages/evil-6.6.dist-info && \\
    cd /opt/venv/lib/python3.11/site-packages/evil-6.6.dist-info && \\
    echo 'Name: </script><script>alert(1)</script>' > METADATA && \\
    echo 'Version: 6.6' >> METADATA && echo evil.py,,123000000000 > RECORD
"""


@pytest.fixture(scope="module")
def planted(engine: Docker, small_image: str) -> Iterator[str]:
    name = f"imagegen-test/size-planted:{tiny_image.TAG}"
    tiny_image.build_from(engine, small_image, name, PLANTED, {}, NETWORK)
    yield name
    engine.remove(name)


@pytest.fixture(scope="module")
def measures(engine: Docker, small_image: str, planted: str) -> Measures:
    def no_matrix() -> Project:
        raise AssertionError("images by reference need no matrix")

    refs = [small_image, planted]
    return measure(no_matrix, lambda: engine, [], refs, Options())


# --- layers and what is inside --------------------------------------------------------------------


def test_layers_are_what_a_registry_would_say(engine: Docker, small_image: str) -> None:
    layers = engine.stored(small_image)
    config = engine.config(small_image)
    # The engine counts the manifest and the configuration as well.
    assert 0 < int(config["Size"]) - sum({x.digest: x.compressed for x in layers}.values()) < 50_000
    assert len(layers) == len(config["RootFS"]["Layers"])
    assert sum(layer.unpacked or 0 for layer in layers) == engine.unpacked(small_image)
    assert any("apt-install" in layer.created_by for layer in layers)


def test_what_is_inside_is_what_its_own_tools_say(engine: Docker, small_image: str) -> None:
    found = contents.of(engine, small_image)
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\\n"]
    said = engine.run(small_image, query, alone=True, timeout=60).out.split("\n")
    assert {f"{one.name} {one.version} {one.arch}" for one in found.dpkg} == {*filter(None, said)}
    listed = engine.run(
        small_image, ["/opt/venv/bin/pip", "list", "--format=json"], alone=True, timeout=120
    )
    installed = {(row["name"], row["version"]) for row in json.loads(listed.out)}
    venv = {
        (one.name, one.version) for one in found.python if one.location.startswith("/opt/venv/")
    }
    assert installed == venv
    assert ("jupyterlab", next(v for n, v in installed if n == "jupyterlab")) in venv
    assert (found.os.id, found.bytes) == ("debian", found.tree.bytes)


def test_what_is_there_twice_is_found(measures: Measures) -> None:
    before, after = (one.inventory for one in measures.images)
    assert before
    assert after
    (new,) = [one for one in after.copies if "/opt/planted/libcopy.so" in one.paths]
    assert "/usr/bin/git" in new.paths
    # a hard link is no copy
    assert "/opt/planted/libcopy.so.linked" not in new.paths
    (libz,) = [one for one in after.versions if one.soname == "libz.so.1"]
    assert {"/opt/planted/libz.so.1.9"} < {place.path for place in libz.places}
    assert not [one for one in before.versions if one.soname == "libz.so.1"]
    linked = next(one.bytes for one in after.copies if one is new)
    assert linked <= after.bytes - before.bytes < linked + 10_000


def test_the_tree_adds_up(measures: Measures) -> None:
    def check(node: Node) -> None:
        if node.children:
            assert sum(child.bytes for child in node.children) == node.bytes
        for child in node.children:
            check(child)

    for one in measures.images:
        assert one.inventory
        check(one.inventory.tree)
        assert sum(one.inventory.kinds.values()) == one.inventory.bytes


def test_an_image_made_from_another_costs_what_it_adds(measures: Measures) -> None:
    one, more = (image.sized for image in measures.images)
    (pair,) = [pair for pair in measures.sharing.pairs if pair.want == more.name]
    assert pair.cost == more.layers[-1].compressed
    assert measures.sharing.once == one.compressed + pair.cost
    assert measures.sharing.order[0] == (one.name, one.compressed)


def test_an_image_without_python_says_so(engine: Docker, tiny: Any) -> None:
    with pytest.raises(EngineError, match="python3"):
        contents.of(engine, tiny().built.image.ref)


# --- the budget -----------------------------------------------------------------------------------


def budgeted(built: Built, budget_gb: float) -> Built:
    return replace(built, image=replace(built.image, budget_gb=budget_gb))


def test_a_budget_that_is_passed_fails_with_the_largest_layers(
    engine: Docker, tiny: Any, tmp_path: Path
) -> None:
    built: Built = tiny(3).built
    within(engine, built, tmp_path)
    within(engine, budgeted(built, 1.0), tmp_path)
    assert not list(tmp_path.glob("*.json")), "what the engine's own figure allows is not read"
    with pytest.raises(BuildError, match=r"takes 0\.003 GB .* budget is 0\.002 GB") as caught:
        within(engine, budgeted(built, 0.002), tmp_path)
    assert built.image.target.id in str(caught.value)
    assert "COPY noise /" in str(caught.value)
    assert "budget_gb" in caught.value.hint
    (file,) = tmp_path.glob("*.json")
    layers = kept(file)
    assert layers == engine.stored(built.digest)


def test_a_build_is_held_to_the_budget_of_its_profile(
    engine: Docker, project: Project, demo: Built
) -> None:
    target = demo.image.target
    profiles = project.matrix.profile
    tight = profiles[target.profile].model_copy(update={"budget_gb": 1.5})
    matrix = project.matrix.model_copy(update={"profile": {**profiles, target.profile: tight}})
    tighter = replace(project, matrix=matrix)
    options = Options(network=NETWORK, base="bootstrap")
    with pytest.raises(BuildError, match=r"its budget is 1\.5 GB") as caught:
        images.build(engine, images.plan(tighter, [target.id], options), options)
    assert "/locks/cuda.txt" in str(caught.value)
    assert engine.local(demo.image.ref), "what was built stays for a look"
    # and the committed budget holds
    assert (
        images.build(engine, images.plan(project, [target.id], options), options)[0][0].digest
        == demo.digest
    )


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_and_writes(engine: Docker, planted: str, tmp_path: Path) -> None:
    file = tmp_path / "size.html"
    words = ["size", "--image", planted, "--html", str(file), "--format", "json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["images"]
    assert row["name"] == planted
    layers = {layer["digest"]: layer["compressed"] for layer in row["layers"]}
    assert row["compressed_bytes"] == sum(layers.values())
    assert "<script>alert" not in file.read_text()


def test_targets_that_are_not_here_are_named(
    engine: Docker, project: Project, small_image: str
) -> None:
    target = project.resolution.targets[0].id
    asked = (lambda: project, lambda: engine, [target])
    with pytest.raises(EngineError, match=f"not built here as it is now: {target}") as caught:
        measure(*asked, [], Options())
    assert caught.value.hint.startswith(f"imagegen build {target},")
    found = measure(*asked, [small_image], Options())
    assert [one.sized.name for one in found.images] == [small_image]
    with pytest.raises(EngineError, match=target):
        complete(found)


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def window(
    chromium: str, measures: Measures, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    """A browser that shows the page from a file, in a container without any network to speak of."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "size.html").write_text(size_page.page(measures), encoding="utf-8")
    options = (f"--volume={folder}:/page:ro", "--publish=127.0.0.1::9515")
    command = ("chromedriver", "--port=9515", "--allowed-ips=")
    with container(chromium, *options, command=command) as name:
        port = process.run("docker", "port", name, "9515/tcp", timeout=60).strip()
        made = Browser(f"http://{port}")
        yield made
        made.close()


BOXES = """
return [...document.querySelectorAll(".map")[words[0]].querySelectorAll(".box")].map(box => ({
    path: box.node.path, bytes: box.node.b, folder: Boolean(box.node.c),
    top: box.tabIndex === 0, up: box.node.up.path,
    at: [parseFloat(box.style.left), parseFloat(box.style.top),
         parseFloat(box.style.width), parseFloat(box.style.height)],
}));
"""
# A label that does not end within its box, or text of the page that is wider than its place.
CLIPPED = """
const out = [];
for (const text of document.querySelectorAll(".box > span")) {
    const [inner, outer] = [text, text.parentElement].map(one => one.getBoundingClientRect());
    if (inner.right > outer.right + .5 || inner.bottom > outer.bottom + .5)
        out.push(text.textContent);
}
for (const one of document.querySelectorAll("section, h2, p, td, .facts, .bar, .crumbs, .shares"))
    if (one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline")
        out.push(one.className + " " + one.textContent.slice(0, 80));
if (document.documentElement.scrollWidth > innerWidth) out.push("the page");
return out;
"""
LAYOUT = "return words[0].map(one => squarified(...one))"


def shown(window: Browser, *, image: int = 0) -> list[dict[str, Any]]:
    return [dict(row) for row in window.run(BOXES, image)]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_nothing_overflows_and_nothing_complains(
    window: Browser, width: int, height: int, dark: bool
) -> None:
    window.looks(width, height, dark=dark)
    window.open("file:///page/size.html")
    eventually(lambda: shown(window), "the treemap")
    assert window.run(CLIPPED) == []
    assert window.console() == []
    assert window.run("return document.querySelectorAll('script').length") == 2
    assert "</script><script>alert(1)</script>" in window.texts("body")[0]
    keep(window, f"size-small-{width}-{'dark' if dark else 'light'}")


def test_boxes_are_inside_their_folders_and_as_large_as_their_bytes(window: Browser) -> None:
    window.looks(1280, 900)
    window.open("file:///page/size.html")
    boxes = eventually(lambda: shown(window, image=1), "the treemap")
    assert len(boxes) > 50
    by_path = {box["path"]: box for box in boxes}
    tops = [box for box in boxes if box["top"]]
    whole = sum(box["bytes"] for box in tops)
    area = sum(box["at"][2] * box["at"][3] for box in tops)
    for box in tops:
        assert box["at"][2] * box["at"][3] / area == pytest.approx(box["bytes"] / whole, abs=1e-4)
    for box in boxes:
        if not box["top"]:
            x, y, w, h = box["at"]
            left, top, wide, high = by_path[box["up"]]["at"]
            assert left <= x, box
            assert top <= y, box
            assert x + w <= left + wide + 0.1, box
            assert y + h <= top + high + 0.1, box


def test_the_layout_keeps_its_laws(window: Browser) -> None:
    window.open("file:///page/size.html")
    chance = random.Random(6)
    cases = []
    for _ in range(200):
        count = chance.randint(1, 60)
        sizes = sorted(
            (chance.randint(1, 10 ** chance.randint(1, 9)) for _ in range(count)), reverse=True
        )
        cases.append([sizes, 5, 7, chance.uniform(10, 1500), chance.uniform(10, 900)])
    for (sizes, x, y, w, h), boxes in zip(cases, window.run(LAYOUT, cases), strict=True):
        total = sum(sizes)
        assert len(boxes) == len(sizes)
        for size, (left, top, wide, high) in zip(sizes, boxes, strict=True):
            assert wide * high == pytest.approx(size / total * w * h, rel=1e-6, abs=1e-6)
            assert left >= x - 1e-6
            assert top >= y - 1e-6
            assert left + wide <= x + w + 1e-6
            assert top + high <= y + h + 1e-6


def test_a_folder_is_entered_and_left_by_mouse_and_keys(window: Browser) -> None:
    window.looks(1280, 900)
    window.open("file:///page/size.html")
    before = eventually(lambda: shown(window), "the treemap")
    folder = next(box["path"] for box in before if box["top"] and box["folder"])
    # by keys
    window.run("document.querySelector('.map .box.folder[tabindex]').focus()")
    window.press(ENTER)
    inside = shown(window)
    assert inside
    assert {box["path"] for box in inside if box["top"]} != {b["path"] for b in before if b["top"]}
    assert all(box["path"].startswith(folder) for box in inside)
    assert window.texts(".crumbs")[0].count("/") >= 2
    window.press(ESCAPE)
    assert shown(window) == before
    # by the mouse, and back by the path above
    x, y = corner(window, ".map .box.folder[tabindex]")
    window.move_to(x, y, click=True)
    assert shown(window) == inside
    window.click(".crumbs button")
    assert shown(window) == before
    assert window.console() == []


def test_a_box_tells_its_bytes_and_its_share(window: Browser) -> None:
    window.looks(1280, 900)
    window.open("file:///page/size.html")
    eventually(lambda: shown(window), "the treemap")
    x, y = corner(window, ".map .box")
    window.move_to(x, y)
    told = window.reads("#tip", "of the image")
    assert "%" in told


def corner(window: Browser, css: str) -> tuple[int, int]:
    """A point within the upper left corner of what ``css`` finds first, which is then in sight."""
    script = """
    const found = document.querySelector(words[0]);
    found.scrollIntoView({block: "center"});
    const box = found.getBoundingClientRect();
    return [Math.round(box.left + 8), Math.round(box.top + 6)];
    """
    x, y = window.run(script, css)
    return x, y


def keep(window: Browser, name: str) -> None:
    if folder := os.environ.get("IMAGEGEN_SCREENSHOT"):
        Path(folder, f"{name}.png").write_bytes(window.screenshot())
