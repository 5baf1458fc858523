"""The figures of the house: how many rooms, how high, and which way its arrows run.

``python -m tests.support.house`` prints them beside their limits; exit status 1 where one is
passed. A room is an entry of imagegen/; an arrow is an import between two, wherever it is written:
at the top of a module, in a function, or for types only. benchmarks is a room on top of them.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
Arrow = tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One line of the table; ``shown`` is what it was counted from."""

    what: str
    found: int
    limit: int
    shown: str = ""

    @property
    def kept(self) -> bool:
        """Whether the limit holds."""
        return self.found <= self.limit


def figures(root: Path = ROOT) -> tuple[Figure, ...]:
    """All figures of the checkout at ``root``."""
    package = root / "imagegen"
    rooms = entries(package)
    found = arrows(root, "imagegen", "benchmarks")
    up = running_back(found, layers((root / "pyproject.toml").read_text(encoding="utf-8")))
    rings = circles(found)
    chain = longest_chain(found)
    faces = {file: code_lines(file.read_text(encoding="utf-8")) for file in _faces(package)}
    most, where = max(parameters(package))
    return (
        Figure(what="entries at the root", found=len(rooms), limit=24, shown=" ".join(rooms)),
        Figure(what="longest chain", found=len(chain), limit=13, shown=" > ".join(chain)),
        Figure(what="arrows", found=len(found), limit=135),
        Figure(what="arrows that run back", found=len(up), limit=0, shown=_drawn(up)),
        Figure(
            what="circles",
            found=len(rings),
            limit=0,
            shown="; ".join(", ".join(sorted(ring)) for ring in rings),
        ),
        Figure(
            what="lines of code in __init__.py",
            found=sum(faces.values()),
            limit=100,
            shown=", ".join(
                f"{file.parent.relative_to(package.parent)} {lines}"
                for file, lines in faces.items()
                if lines
            ),
        ),
        Figure(what="longest parameter list", found=most, limit=12, shown=where),
    )


def _drawn(found: Iterable[Arrow]) -> str:
    return ", ".join(f"{start} > {end}" for start, end in sorted(found))


# --- rooms and arrows -----------------------------------------------------------------------------


def entries(package: Path) -> list[str]:
    """What ``ls`` shows of the package, without what Python leaves there."""
    return sorted(path.name for path in package.iterdir() if path.name != "__pycache__")


def arrows(root: Path, package: str, *users: str) -> frozenset[Arrow]:
    """From which room of ``package`` to which other something is imported.

    ``users`` are packages beside it, a room each.
    """
    sys.path.insert(0, str(root))  # a checkout is not installed
    try:
        graph = grimp.build_graph(package, *users, cache_dir=None)
    finally:
        sys.path.remove(str(root))

    def room(module: str) -> str:
        first, *inner = module.split(".")
        return (inner or ["__init__"])[0] if first == package else first

    return frozenset(
        (room(module), room(imported))
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
        if room(module) != room(imported)
    )


def layers(pyproject: str) -> tuple[frozenset[str], ...]:
    """The rooms of each layer of import-linter's contract, the highest first."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    (rows,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return tuple(frozenset(row.replace("|", ":").replace(" ", "").split(":")) for row in rows)


def running_back(found: Iterable[Arrow], floors: tuple[frozenset[str], ...]) -> frozenset[Arrow]:
    """The arrows that lead to a layer above the one that they start from."""
    height = {room: number for number, floor in enumerate(floors) for room in floor}
    return frozenset(
        (start, end)
        for start, end in found
        if start in height and end in height and height[end] < height[start]
    )


def _reached(found: Iterable[Arrow]) -> Mapping[str, frozenset[str]]:
    """Room -> all that its arrows lead to, over others too."""
    reached: dict[str, set[str]] = {}
    for start, end in found:
        reached.setdefault(start, set()).add(end)
        reached.setdefault(end, set())
    for middle in reached:
        for ends in reached.values():
            if middle in ends:
                ends |= reached[middle]
    return {room: frozenset(ends) for room, ends in reached.items()}


def circles(found: Iterable[Arrow]) -> frozenset[frozenset[str]]:
    """The groups of rooms each of which leads to all others of its group."""
    reached = _reached(found)
    return frozenset(
        frozenset(other for other in reached[room] if room in reached[other])
        for room in reached
        if room in reached[room]
    )


def longest_chain(found: frozenset[Arrow]) -> tuple[str, ...]:
    """The rooms of the longest way along arrows; a circle on it counts with all of its rooms."""
    ring = {room: group for group in circles(found) for room in group}
    best: dict[frozenset[str], tuple[str, ...]] = {}

    def below(group: frozenset[str]) -> tuple[str, ...]:
        if group not in best:
            ends = {end for start, end in found if start in group} - group
            rest = (below(ring.get(end, frozenset({end}))) for end in sorted(ends))
            best[group] = (*sorted(group), *max(rest, key=len, default=()))
        return best[group]

    rooms = sorted({room for arrow in found for room in arrow})
    chains = (below(ring.get(room, frozenset({room}))) for room in rooms)
    return max(chains, key=len, default=())


# --- lines and parameters -------------------------------------------------------------------------


def _faces(package: Path) -> list[Path]:
    return sorted(package.rglob("__init__.py"))


def code_lines(text: str) -> int:
    """The lines that are neither blank nor part of a docstring."""
    said = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr)
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return sum(
        bool(line.strip()) and number not in said
        for number, line in enumerate(text.splitlines(), start=1)
    )


def parameters(package: Path) -> Iterator[tuple[int, str]]:
    """How many each function takes, ``self`` and ``cls`` not counted, and where it is."""
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                of = node.args
                every = [*of.posonlyargs, *of.args, *of.kwonlyargs, of.vararg, of.kwarg]
                names = {one.arg for one in every if one} - {"self", "cls"}
                yield len(names), f"{file.relative_to(package.parent)}:{node.lineno} {node.name}"


def main() -> None:
    """Print every figure and what it was counted from."""
    found = figures()
    for figure in found:
        mark = " " if figure.kept else "!"
        print(
            f"{mark} {figure.what:<30}{figure.found:>4}  at most {figure.limit:>3}  {figure.shown}"
        )
    raise SystemExit(not all(figure.kept for figure in found))


if __name__ == "__main__":
    main()
