"""One outcome as text, JSON, JUnit and a job summary."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.errors import UsageError
from imagegen.model.report import Check, Report, Result
from imagegen.output import checks
from tests.support import values
from tests.support.values import DEMO, DIGEST

_MADE = values.report("pass", "fail", "skip")
CHECKS = tuple(replace(check, level="smoke") for check in _MADE.checks)
THREE = replace(values.result(), report=replace(_MADE, checks=CHECKS))
OTHER = Result(
    name="somebody/image:1",
    report=Report(
        digest=DIGEST,
        checks=(
            Check(name="R1", status="pass", detail="a|b <c> `d`", seconds=0.25, level="runpod"),
            Check(
                name="V1",
                status="fail",
                detail="no\x00 & <no>",
                seconds=2,
                level="vast",
                guards="x",
            ),
        ),
        seconds=2.5,
    ),
)


def with_checks(*rows: Check) -> Result:
    return replace(THREE, report=replace(THREE.report, checks=rows))


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    checks.show([THREE], "text")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{DEMO.id}: 1 passed, 1 failed, 1 skipped, 1.5 s"
    assert [line.split()[0] for line in lines[2:]] == ["pass", "fail", "skip"]
    assert "detail 1" in lines[3]
    checks.show([values.result("pass", cached="already tested")], "text")
    assert "1 passed, 0 failed, 0 skipped, already tested" in capsys.readouterr().out


def test_a_long_detail_is_one_short_line() -> None:
    check = replace(THREE.report.checks[1], detail="line\n" * 1000)
    lines = checks.text([with_checks(check)]).splitlines()
    assert len(lines) == 3
    assert len(lines[2]) < 200


def test_json() -> None:
    ours, others = json.loads(checks.as_json([THREE, OTHER]))
    assert ours["id"] == DEMO.id
    assert others["ref"] == "somebody/image:1"
    for row, one in ((ours, THREE), (others, OTHER)):
        assert row["digest"] == DIGEST
        assert row["passed"] is False
        assert [check["status"] for check in row["checks"]] == [c.status for c in one.report.checks]
        found = set(row["checks"][0])
        assert found == {"level", "name", "status", "detail", "seconds", "guards"}


def test_junit_has_a_suite_for_each_level_and_says_what_a_check_guards_against() -> None:
    root = ElementTree.fromstring(checks.junit([THREE, OTHER]))
    about = [(s.get("name"), s.get("tests"), s.get("failures"), s.get("skipped")) for s in root]
    assert about == [
        (f"{DEMO.id} smoke", "3", "1", "1"),
        ("somebody/image:1 runpod", "1", "0", "0"),
        ("somebody/image:1 vast", "1", "1", "0"),
    ]
    case = root.find(".//testcase[@name='V1']")
    assert case is not None
    assert case.get("classname") == "somebody/image:1.vast"
    failure, guards = case.find("failure"), case.find("properties/property")
    assert failure is not None
    assert failure.get("message") == failure.text == "no\ufffd & <no>"
    assert guards is not None
    assert (guards.get("name"), guards.get("value")) == ("guards", "x")
    assert len(root.findall(".//skipped")) == 1


@given(st.text())
def test_whatever_a_check_says_is_xml(words: str) -> None:
    check = replace(OTHER.report.checks[1], detail=words, guards=words)
    ElementTree.fromstring(checks.junit([with_checks(check)]))


def test_a_job_summary_shows_what_failed_and_folds_the_rest() -> None:
    text = checks.github([THREE, OTHER])
    assert f"### {DEMO.id}: **failed**" in text
    assert text.count("<details><summary>1 passed</summary>") == 2
    assert "| vast | V1 | 2.0 | no\ufffd \\& \\<no\\> |" in text
    assert r"a\|b \<c\> \`d\`" in text
    assert "| V1 |" in text.split("<details>")[-2].split("</details>")[-1]
    assert checks.github([values.result("pass")]).startswith(f"### {DEMO.id}: passed\n")


def test_files_get_their_form_and_a_summary_is_added_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junit, summary = tmp_path / "a=b.xml", tmp_path / "summary"
    summary.write_text("before\n")
    asked = checks.files([f"junit={junit}", f"github={summary}"])
    checks.show([OTHER], "json", asked)
    assert json.loads(capsys.readouterr().out)[0]["passed"] is False
    checks.show([OTHER], "text", asked)
    assert ElementTree.parse(junit).getroot().tag == "testsuites"
    assert summary.read_text() == "before\n" + (checks.github([OTHER]) + "\n") * 2


@pytest.mark.parametrize(
    "one", ["junit", "junit=", "xml=x.xml", "=x.xml", "junit=/no/such/x.xml", "json=/"]
)
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_built(one: str) -> None:
    with pytest.raises(UsageError, match="--report"):
        checks.files([one])
