"""The ledger of templates, and the table that is made from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen import templating
from imagegen.errors import StaleFiles, UsageError
from imagegen.pods.ledger import Entry, Ledger, locked

from .values import ROOT

ENTRY = Entry(
    platform="runpod",
    target="a-target",
    name="a-target",
    id="tpl1",
    content="c" * 64,
    image="ghcr.io/me/x:tag@sha256:1",
    compressed=2_850_000_000,
    unpacked=7_000_000_000,
    link="https://console.runpod.io/deploy?template=tpl1",
    date="2026-11-22",
)
VAST = replace(
    ENTRY,
    platform="vast",
    id="7",
    hash_id="abc",
    link="https://cloud.vast.ai/?template_id=abc",
)


def test_what_was_put_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "templates.json"
    ledger = Ledger(file)
    assert ledger.entries == ()
    ledger.put(VAST)
    ledger.put(ENTRY)
    assert Ledger(file).entries == (ENTRY, VAST)
    ledger.put(replace(ENTRY, content="d"))
    assert Ledger(file).current("runpod", "a-target") == replace(ENTRY, content="d")
    ledger.drop(VAST)
    assert len(Ledger(file).entries) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["templates.json"]


@given(st.permutations(range(5)))
def test_the_order_of_the_lines_is_that_of_no_run(order: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder, "x.json"))
        for number in order:
            ledger.put(replace(ENTRY, id=f"tpl{number}", name=f"n{number % 2}"))
        text = ledger.path.read_text()
    assert [row["id"][-1] for row in json.loads(text)["templates"]] == list("02413")
    assert text.endswith("]\n}\n") and '\n      "compressed": 2850000000,\n' in text


def test_superseded_is_all_but_the_one_in_use(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "x.json")
    for number, day in (("1", "2026-01-01"), ("2", "2026-02-02"), ("3", "2026-03-03")):
        ledger.supersede(replace(VAST, id=number), day)
    days = {entry.id: entry.superseded for entry in ledger.entries}
    assert days == {"1": "2026-02-02", "2": "2026-03-03", "3": ""}
    ledger.supersede(ledger.of("vast", "a-target")[0], "2026-04-04")
    current = ledger.current("vast", "a-target")
    assert current and current.id == "1"


def test_nothing_is_written_where_nothing_changed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "x.json")
    ledger.put(ENTRY)
    before = ledger.path.stat()
    ledger.put(ENTRY)
    assert ledger.path.stat().st_ino == before.st_ino


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", '{"templates": 1}', '{"templates": [1]}', '{"templates": [{}]}'),
        json.dumps({"templates": [{"id": 1}]}),
        json.dumps({"templates": [{"unknown": "x"}]}),
        "\udcff",
    ],
)
def test_a_file_that_is_none_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match="is no ledger of templates"):
        Ledger(file)


def test_the_lock_leaves_nothing_and_needs_its_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "x.json", print) as ledger:
        assert ledger.entries == ()
    assert not list(tmp_path.iterdir())
    with (
        pytest.raises(UsageError, match="cannot be written"),
        locked(tmp_path / "none" / "x.json", print),
    ):
        pass


# --- the table ------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_image(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    assert templating.table(file) == templating.NONE
    ledger = Ledger(file)
    ledger.put(replace(ENTRY, content=""))  # half-made: nobody should deploy it
    assert templating.table(file) == templating.NONE
    for entry in (ENTRY, VAST, replace(VAST, id="6", superseded="2026-11-01")):
        ledger.put(entry)
    other = "ghcr.io/me/x:tag@sha256:2"
    ledger.put(replace(ENTRY, id="tpl2", target="b", name="b", image=other))
    assert templating.table(file).splitlines() == [
        "| target | image | to pull | unpacked | RunPod | vast.ai |",
        "|---|---|---|---|---|---|",
        "| a-target | `ghcr.io/me/x:tag@sha256:1` | 2.9 GB | 7.0 GB "
        f"| [deploy]({ENTRY.link}) | [deploy]({VAST.link}) |",
        f"| b | `{other}` | 2.9 GB | 7.0 GB | [deploy]({ENTRY.link}) |  |",
    ]


def test_a_readme_gets_the_table_between_its_markers(tmp_path: Path) -> None:
    file, readme = tmp_path / "x.json", tmp_path / "README.md"
    readme.write_text("# x\n\n<!-- published -->\n<!-- /published -->\n\nend\n")
    with pytest.raises(StaleFiles, match="No image is published yet") as caught:
        templating.into(file, readme, check=True)
    assert caught.value.hint == f"imagegen template table --into {readme}"
    assert templating.into(file, readme, check=False)
    assert not templating.into(file, readme, check=True)
    Ledger(file).put(ENTRY)
    with pytest.raises(StaleFiles, match=r"\+\| a-target \|"):
        templating.into(file, readme, check=True)
    assert templating.into(file, readme, check=False)
    text = readme.read_text()
    assert text.startswith("# x\n\n<!-- published -->\n| target |")
    assert text.endswith(" |\n<!-- /published -->\n\nend\n")


@pytest.mark.parametrize(
    "text",
    ["", "<!-- published -->", "<!-- /published --><!-- published -->", "<!-- published -->" * 2],
)
def test_a_readme_without_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    with pytest.raises(UsageError, match="No such file"):
        templating.into(tmp_path / "x.json", readme, check=False)
    readme.write_text(text)
    with pytest.raises(UsageError, match="once each"):
        templating.into(tmp_path / "x.json", readme, check=False)
    assert readme.read_text() == text


def test_the_readme_shows_what_the_ledger_says() -> None:
    assert not templating.into(ROOT / "dockerfiles/templates.json", ROOT / "README.md", check=True)
