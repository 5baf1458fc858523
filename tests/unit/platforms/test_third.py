"""A third platform, made here: what its folder offers and its line in ``PLATFORMS`` are enough for
its level of checks, its command and its column.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import imagegen.cli.app
from imagegen.checks.contract import Suite, Trial
from imagegen.commands import published as published_
from imagegen.compat.facts.tables import Facts
from imagegen.errors import ChecksFailed
from imagegen.model.pushed import Pushed
from imagegen.platforms import PLATFORMS, Platform, needed
from imagegen.platforms.api import Api
from imagegen.platforms.apply import Done, Row, noted
from imagegen.platforms.diff import change
from imagegen.platforms.ledger import Entry, Ledger
from imagegen.platforms.spec import Spec, Wish, disk
from tests.support.platforms import server
from tests.support.platforms.server import KEY, Answer, Asked
from tests.support.values import DEMO, as_tested, pushed, report

# --- what would be in imagegen/platforms/third/ ---------------------------------------------------

SUITE = Suite("third")


@SUITE.clause("a pod of Third Cloud has no entrypoint")
def t1_starts_without_an_entrypoint(trial: Trial) -> str:
    return trial.ref


class Templates:
    """The account's templates, by their names."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._rows: dict[str, Row] = {}

    def login(self, wanted: str) -> str:
        return wanted

    def look(self, _wanted: Sequence[Spec], _ledger: Ledger) -> None:
        rows: Any = self._api.call("GET", "/templates", replay=True)
        self._rows = {row["name"]: row for row in rows}

    def seen(self, spec: Spec, _ledger: Ledger) -> Done:
        have = self._rows.get(spec.name)
        id_ = str(have["id"]) if have else ""
        return Done(spec=spec, change=change(spec.body, have), id=id_, link=link(id_))

    def made(self, seen: Done, ledger: Ledger) -> Done:
        made: Any = self._rows.get(seen.spec.name)
        if seen.change.action == "create":
            made = self._api.call("POST", "/templates", body=seen.spec.body, replay=False)
        ledger.only(noted(seen.spec, made["id"], link(made["id"])))
        return replace(seen, id=made["id"], link=link(made["id"]))

    def delete(self, _superseded: Entry) -> str:
        return "nothing is superseded"


def link(id_: str) -> str:
    return f"https://third.example/{id_}" if id_ else ""


class Third:
    """As its module ``platform`` would be."""

    name = "third"
    title = "Third Cloud"
    address = "https://api.third.example"
    address_variable = "THIRD_API_URL"
    key_variable = "THIRD_API_KEY"
    hints = MappingProxyType({401: "THIRD_API_KEY is another's"})
    options: tuple[str, ...] = ()
    about = "It has no volumes."

    def contract(self) -> Suite:
        return SUITE

    def template(self, pushed: Pushed, _facts: Facts, wish: Wish) -> dict[str, object]:
        name = f"{wish.prefix}{pushed.target.id}"
        return {"name": name, "image": pushed.pinned, "disk": disk(pushed)}

    def spec(self, pushed: Pushed, facts: Facts, wish: Wish) -> Spec:
        body = self.template(pushed, facts, wish)
        return Spec.of(self.name, pushed, body, requests={"POST /templates": body})

    def account(self, api: Api) -> Templates:
        return Templates(api)


class Cloud(server.Platform):
    """A stand-in for it."""

    def __init__(self) -> None:
        super().__init__()
        self.templates: list[dict[str, Any]] = []

    def answer(self, asked: Asked) -> Answer:
        if asked.headers.get("Authorization") != f"Bearer {KEY}":
            return Answer(401, {"error": "who is that?"})
        if asked.method == "POST":
            self.templates.append(asked.body | {"id": f"t{len(self.templates)}"})
            return Answer(201, self.templates[-1])
        return Answer(200, self.templates)


# --- and the one line -----------------------------------------------------------------------------


def passed() -> Pushed:
    """An image that passed what a push asks for now."""
    return pushed(report=report(*["pass" for _ in needed()]))


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> Platform:
    one: Platform = Third()
    monkeypatch.setitem(PLATFORMS, one.name, one)  # type: ignore[misc]
    return one


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, third: Platform, line: Any) -> Any:
    """``imagegen WORDS``, as the program is that has the platform from its start: its command line
    is imported anew, and the one from before is there again afterwards.
    """
    monkeypatch.setattr(imagegen, "cli", imagegen.cli)
    for name in [name for name in sys.modules if name.split(".")[:2] == ["imagegen", "cli"]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(published_, "published", lambda *_: (passed(),))
    return line


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    cloud = Cloud()
    with server.served(cloud):
        monkeypatch.setenv("THIRD_API_URL", cloud.url)
        monkeypatch.setenv("THIRD_API_KEY", KEY)
        yield cloud


def test_its_contract_is_a_level(line: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert line("test", "--list", "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["level"] for row in rows} == {"smoke", "gpu", *PLATFORMS}
    assert line("test", "--list", "--level", "third") == 0
    assert "t1_starts_without_an_entrypoint" in capsys.readouterr().out
    assert line("test", "--help") == 0
    assert "runpod, vast, third: the platforms' contracts" in squeezed(capsys.readouterr().out)


def test_what_is_pushed_has_passed_it(third: Platform) -> None:
    assert needed() == ("smoke", "runpod", "vast", third.name)
    with pytest.raises(ChecksFailed, match="was not tried for third"):
        as_tested("pass", "pass", "pass")
    assert as_tested("pass", "pass", "pass", "pass")
    with pytest.raises(ChecksFailed, match="has no report that passed"):
        pushed(report=report("pass", "pass", "pass"))


def test_it_has_a_command_with_its_own_words_and_options(
    line: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line("template", "third", "--help") == 0
    words = squeezed(capsys.readouterr().out)
    assert "Third Cloud's templates of the selected targets." in words
    assert "need THIRD_API_KEY in the environment. It has no volumes." in words
    assert "--name-prefix" in words
    assert "--prune-old" not in words and "--registry-auth" not in words


def test_its_template_is_printed_without_a_key(
    line: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line("template", "third", DEMO.id, "--name-prefix", "x-") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["POST /templates"]["name"] == f"x-{DEMO.id}"
    assert row["POST /templates"]["image"] == passed().pinned


@pytest.mark.loopback
def test_a_plan_changes_nothing_and_a_second_apply_neither(
    line: Any, cloud: Cloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("template", "third", "--ledger", str(tmp_path / "templates.json"))

    def said(*more: str) -> str:
        assert line(*words, *more) == 0
        return capsys.readouterr().out

    assert said("--plan") == f"{DEMO.id}: would be created\n"
    assert cloud.writes() == [] and not cloud.templates
    link = "https://third.example/t0"
    assert said("--apply") == f"{DEMO.id}: created\n  {link}\n"
    assert said("--apply") == f"{DEMO.id}: nothing to change\n  {link}\n"
    assert cloud.writes() == ["POST /templates"]
    assert line("template", "table", "--ledger", words[-1]) == 0
    head, _, row = capsys.readouterr().out.strip().splitlines()
    assert head.endswith("| RunPod | vast.ai | Third Cloud |")
    assert row.endswith(f"|  |  | [deploy]({link}) |")


@pytest.mark.loopback
def test_its_refusal_has_its_own_words_and_no_key(
    line: Any,
    cloud: Cloud,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("THIRD_API_KEY", "another-key")
    assert line("template", "third", "--plan", "--ledger", str(tmp_path / "t.json")) == 9
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "error: Third Cloud: GET /templates: HTTP 401 Unauthorized: who is that?",
        "  hint: THIRD_API_KEY is another's",
    ]


def squeezed(text: str) -> str:
    return " ".join(text.split())
