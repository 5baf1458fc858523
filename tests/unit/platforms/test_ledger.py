"""The ledger of templates, and the table that is made from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.errors import StaleFiles, UsageError
from imagegen.platforms import table as published
from imagegen.platforms.ledger import Entry, Ledger, locked
from tests.support.values import ROOT

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
    ledger.drop("vast", VAST.id)
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


def test_one_that_is_the_only_one_has_no_other_of_its_name(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "x.json")
    for entry in (ENTRY, replace(ENTRY, id="tpl2"), VAST, replace(ENTRY, id="tpl3", name="b")):
        ledger.put(entry)
    ledger.only(replace(ENTRY, id="tpl4"))
    assert {entry.id for entry in Ledger(ledger.path).entries} == {"7", "tpl3", "tpl4"}


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
    with pytest.raises(UsageError, match="is not a ledger of templates"):
        Ledger(file)


def test_the_lock_leaves_nothing_and_needs_its_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "x.json") as ledger:
        assert ledger.entries == ()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["none/x.json", "file/x.json"])
def test_a_ledger_without_its_folder_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / place
    for use in (lambda: Ledger(path), lambda: locked(path).__enter__()):
        with pytest.raises(UsageError) as caught:
            use()
        assert f"{path.parent} is not a folder" in str(caught.value)
        assert "--ledger" in caught.value.hint


def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory") as caught:
        Ledger(tmp_path)
    assert "--ledger names the file" in caught.value.hint


# --- the table ------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_image(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    assert published.table(file) == published.NONE
    ledger = Ledger(file)
    ledger.put(replace(ENTRY, content=""))  # half-made: nobody should deploy it
    assert published.table(file) == published.NONE
    for entry in (ENTRY, VAST, replace(VAST, id="6", superseded="2026-11-01")):
        ledger.put(entry)
    other = "ghcr.io/me/x:tag@sha256:2"
    ledger.put(replace(ENTRY, id="tpl2", target="b", name="b", image=other))
    assert published.table(file).splitlines() == [
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
        published.into(file, readme, check=True)
    assert caught.value.hint == f"imagegen template table --into {readme}"
    assert published.into(file, readme, check=False)
    assert not published.into(file, readme, check=True)
    Ledger(file).put(ENTRY)
    with pytest.raises(StaleFiles, match=r"\+\| a-target \|"):
        published.into(file, readme, check=True)
    assert published.into(file, readme, check=False)
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
        published.into(tmp_path / "x.json", readme, check=False)
    readme.write_text(text)
    with pytest.raises(UsageError, match="once each"):
        published.into(tmp_path / "x.json", readme, check=False)
    assert readme.read_text() == text


def test_a_readme_that_is_no_text_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_bytes(b"caf\xe9 <!-- published -->\n<!-- /published -->")
    with pytest.raises(UsageError, match=r"is not UTF-8: .* at byte 3"):
        published.into(tmp_path / "x.json", readme, check=False)
    assert readme.read_bytes().startswith(b"caf\xe9")


def test_a_readme_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, link = tmp_path / "real.md", tmp_path / "README.md"
    real.write_text("<!-- published --><!-- /published -->" + "x" * 100)
    real.chmod(0o640)
    link.symlink_to(real)
    before, write = real.read_text(), Path.write_text

    def full(path: Path, text: str, **how: str) -> int:
        write(path, text[:30], **how)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk, pytest.raises(OSError, match="No space"):
        disk.setattr(Path, "write_text", full)
        published.into(tmp_path / "x.json", link, check=False)
    assert real.read_text() == before
    assert published.into(tmp_path / "x.json", link, check=False)
    assert published.NONE in real.read_text() and link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert {path.name for path in tmp_path.iterdir()} == {"real.md", "README.md"}


def test_the_readme_shows_what_the_ledger_says() -> None:
    assert not published.into(ROOT / "dockerfiles/templates.json", ROOT / "README.md", check=True)
