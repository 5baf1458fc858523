"""The outcome of an image's checks: one value, four forms."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from imagegen.errors import UsageError
from imagegen.model.report import Check, Result
from imagegen.output.console import check_row, table
from imagegen.output.images import built_row

if TYPE_CHECKING:
    from imagegen.checks.smoke import Listed


def files(reports: Sequence[str]) -> tuple[tuple[str, Path], ...]:
    """``FORMAT=FILE`` as pairs.

    Raises:
        UsageError: an unknown format, or a file that cannot be written.
    """
    pairs = []
    for one in reports:
        form, _, file = one.partition("=")
        if form not in FORMS or not file:
            raise UsageError(f"--report {one}: expected FORMAT=FILE, FORMAT of {', '.join(FORMS)}")
        at = Path(file)
        if not at.parent.is_dir():
            raise UsageError(f"--report {one}: there is no folder {at.parent}")
        if at.is_dir() or not os.access(at if at.exists() else at.parent, os.W_OK):
            raise UsageError(f"--report {one}: {at} cannot be written")
        pairs.append((form, Path(file)))
    return tuple(pairs)


def show(results: Sequence[Result], form: str, also: Sequence[tuple[str, Path]] = ()) -> None:
    """Print the results, and write them to files in other forms; a job summary is added to."""
    print(FORMS[form](results), flush=True)
    for other, file in also:
        with file.open("a" if other == "github" else "w", encoding="utf-8") as out:
            out.write(FORMS[other](results) + "\n")


def catalogue(listed: Sequence[Listed], levels: Collection[str], form: str) -> None:
    """All checks, or those of some levels."""
    chosen = [one for one in listed if not levels or one.level in levels]
    if form == "json":
        print(json.dumps([asdict(one) for one in chosen], indent=2, ensure_ascii=False))
        return
    head = ("LEVEL", "CHECK", "GUARDS AGAINST")
    print(table(head, ((one.level, one.name, one.guards) for one in chosen)))


def row(one: Result) -> dict[str, object]:
    """A result as JSON values."""
    about = built_row(one.built) if one.built else {"ref": one.name}
    return {
        **about,
        "digest": one.report.digest,
        "passed": one.report.passed,
        "tested": one.cached,
        "check_seconds": round(one.report.seconds, 1),
        "checks": list(map(check_row, one.report.checks)),
    }


def text(results: Sequence[Result]) -> str:
    """A table for each image."""
    head = ("", "LEVEL", "CHECK", "SECONDS", "DETAIL")
    parts = (
        f"{one.name}: {verdict(one)}\n{table(head, map(_cells, one.report.checks))}"
        for one in results
    )
    return "\n".join(parts)


def verdict(one: Result) -> str:
    """How many checks ended how, and how long they took."""
    counts = {s: sum(c.status == s for c in one.report.checks) for s in ("pass", "fail", "skip")}
    words = f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped"
    return f"{words}, {one.cached or f'{one.report.seconds:.1f} s'}"


def _cells(check: Check) -> tuple[str, str, str, str, str]:
    detail = " ".join(check.detail.split())[:150]
    return check.status, check.level, check.name, f"{check.seconds:.1f}", detail


def as_json(results: Sequence[Result]) -> str:
    """A list of objects."""
    return json.dumps(list(map(row, results)), indent=2, ensure_ascii=False)


def junit(results: Sequence[Result]) -> str:
    """JUnit's XML: a suite for each image and level, what a check guards against as a property."""
    root = ElementTree.Element("testsuites")
    for one in results:
        for level in dict.fromkeys(check.level for check in one.report.checks):
            _suite(root, one, level)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _suite(root: ElementTree.Element, one: Result, level: str) -> None:
    found = [check for check in one.report.checks if check.level == level]
    count = {s: str(sum(check.status == s for check in found)) for s in ("fail", "skip")}
    about = {
        "name": f"{one.name} {level}",
        "tests": str(len(found)),
        "failures": count["fail"],
        "errors": "0",
        "skipped": count["skip"],
        "time": f"{sum(check.seconds for check in found):.3f}",
    }
    suite = ElementTree.SubElement(root, "testsuite", about)
    for check in found:
        where = {"classname": f"{one.name}.{level}", "name": check.name}
        case = ElementTree.SubElement(suite, "testcase", where | {"time": f"{check.seconds:.3f}"})
        properties = ElementTree.SubElement(case, "properties")
        guards = {"name": "guards", "value": check.guards}
        ElementTree.SubElement(properties, "property", guards)
        if check.status == "fail":
            message = {"message": check.detail}
            ElementTree.SubElement(case, "failure", message).text = check.detail
        elif check.status == "skip":
            ElementTree.SubElement(case, "skipped", {"message": check.detail})
        else:
            ElementTree.SubElement(case, "system-out").text = check.detail


def github(results: Sequence[Result]) -> str:
    """Markdown for a job's summary: what failed first, what passed folded away."""
    return "\n".join(_summary(one) for one in results)


def _summary(one: Result) -> str:
    mark = "passed" if one.report.passed else "**failed**"
    lines = [
        f"### {_markdown(one.name)}: {mark}",
        "",
        verdict(one),
        "",
        f"`{one.report.digest}`",
        "",
    ]
    for status, words in (("fail", "failed"), ("skip", "skipped"), ("pass", "passed")):
        found = [check for check in one.report.checks if check.status == status]
        if not found:
            continue
        rows = ["| level | check | seconds | detail |", "|---|---|---:|---|"]
        rows += [
            f"| {c.level} | {_markdown(c.name)} | {c.seconds:.1f} | {_markdown(c.detail)} |"
            for c in found
        ]
        fold = status != "fail"
        lines += [f"<details><summary>{len(found)} {words}</summary>", ""] * fold
        lines += rows + ["", "</details>"] * fold + [""]
    return "\n".join(lines)


def _markdown(words: str) -> str:
    """One cell of a table, nothing of it read as markup."""
    plain = " ".join(words.split())[:300]
    return re.sub(r"([\\`*_{}\[\]<>|#&~])", r"\\\1", plain)


FORMS: Mapping[str, Callable[[Sequence[Result]], str]] = {
    "text": text,
    "json": as_json,
    "junit": junit,
    "github": github,
}
