"""A law over many values is one test: it tries all of them and fails once, naming every fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Value = TypeVar("Value")

LINES = 6
"""How much of what a fault says is shown: the first lines of an assertion hold what differs."""


def for_all(
    values: Iterable[Value], name: Callable[[Value], str]
) -> Callable[[Callable[[Value], None]], Callable[[], None]]:
    """Make one test of a law that takes a value: in the place of a parametrization by thousands."""
    values = tuple(values)

    def made(law: Callable[[Value], None]) -> Callable[[], None]:
        def test() -> None:
            hold(law, values, name)

        for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
            setattr(test, attribute, getattr(law, attribute))
        return test

    return made


def hold(
    law: Callable[[Value], None], values: Iterable[Value], name: Callable[[Value], str]
) -> None:
    """Try a law on every value.

    Raises:
        AssertionError: it does not hold for each that is named; or there was no value at all.
    """
    tried, faults = 0, []
    for value in values:
        tried += 1
        try:
            law(value)
        except Exception as error:  # whatever it is, the values after it are tried as well
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            said = f"{kind}{error}".splitlines()[:LINES] or ["it does not hold"]
            faults.append("\n  ".join([f"{name(value)}: {said[0]}", *said[1:]]))
    assert tried, "no value: the law was not tried"
    assert not faults, "\n".join([f"{len(faults)} of {tried} are at fault:", *faults])
