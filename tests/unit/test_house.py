"""The house keeps its figures, and they are counted rightly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import house
from tests.support.values import ROOT


@pytest.fixture(scope="module")
def figures() -> tuple[house.Figure, ...]:
    return house.figures()


def test_every_limit_is_kept(figures: tuple[house.Figure, ...]) -> None:
    passed = [f"{one.what}: {one.found}, {one.shown}" for one in figures if not one.kept]
    assert not passed, "\n".join(passed)


def test_the_limits_are_those_of_the_plan(figures: tuple[house.Figure, ...]) -> None:
    assert [one.limit for one in figures] == [24, 13, 135, 0, 0, 100, 12]
    assert all(one.found for one in figures if one.limit), "there was nothing to count"


def test_import_linter_holds_the_same_rooms() -> None:
    """In at most 15 layers; a list of names stands nowhere else."""
    floors = house.layers((ROOT / "pyproject.toml").read_text())
    assert len(floors) <= 15
    rooms = {name.removesuffix(".py") for name in house.entries(ROOT / "imagegen")}
    assert {room for floor in floors for room in floor} == rooms - {"__init__", "data", "image"}


# --- how it is counted ----------------------------------------------------------------------------

UP = frozenset({("cli", "build"), ("build", "model"), ("cli", "model"), ("plan", "model")})


def test_the_longest_chain_counts_rooms() -> None:
    assert house.longest_chain(UP) == ("cli", "build", "model")
    assert house.longest_chain(frozenset()) == ()


def test_a_circle_is_found_and_counts_with_all_of_its_rooms() -> None:
    assert house.circles(UP) == frozenset()
    ring = UP | {("model", "plan")}
    assert house.circles(ring) == {frozenset({"model", "plan"})}
    assert house.longest_chain(ring) == ("cli", "build", "model", "plan")


def test_an_arrow_to_a_higher_layer_runs_back() -> None:
    text = """
    [[tool.importlinter.contracts]]
    type = "layers"
    layers = ["cli", "build | plan", "model : util"]
    [[tool.importlinter.contracts]]
    type = "forbidden"
    """
    floors = house.layers(text)
    assert floors == ({"cli"}, {"build", "plan"}, {"model", "util"})
    assert house.running_back(UP, floors) == set()
    back = {("build", "cli"), ("util", "plan")}
    assert house.running_back(UP | back, floors) == back


def test_imports_count_wherever_they_are_written(tmp_path: Path) -> None:
    # A name of its own: the package of this process is loaded already.
    lines = {
        "a.py": "from house_sample.b import x\n",
        "b.py": "def f():\n    from house_sample import c\n",
        "c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house_sample.d\n",
        "d/__init__.py": "from house_sample.d import inner\n",
        "d/inner.py": "import json\n",
    }
    for name, text in {"__init__.py": "", **lines}.items():
        file = tmp_path / "house_sample" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    found = house.arrows(tmp_path, "house_sample")
    assert found == {("a", "b"), ("b", "c"), ("c", "d")}


def test_lines_of_code() -> None:
    text = '"""Says\n\nwhat it is."""\n\nimport json  # why\n\nX = [\n    1,\n]\n"""Of X."""\n'
    assert house.code_lines(text) == 4
    assert house.code_lines('"""Nothing."""\n') == 0


def test_parameters_of_every_kind_count(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "class A:\n    def f(self, a, /, b, *c, d=1, **e): pass\nasync def g(): pass\n"
    )
    assert {number for number, _ in house.parameters(tmp_path)} == {5, 0}
