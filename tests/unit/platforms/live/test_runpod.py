"""RunPod: a template is made, changed and left alone, and no fault leaves half of one behind."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from typing import Any

import pytest

from imagegen.commands import templates
from imagegen.errors import PlatformError
from imagegen.platforms import apply
from imagegen.platforms import table as published
from imagegen.platforms.runpod.template import LABELS
from tests.support.platforms.runpod import RunPod, problem
from tests.support.platforms.server import READER, Answer, served
from tests.support.values import DEMO, FACTS, RESOLUTION, pushed
from tests.unit.platforms.live.conftest import Client

POST, LIST = "POST /v2/templates", "GET /v2/templates"
OTHER = "sha256:" + "e" * 64
TOO_MANY = Answer(429, {"title": "Too Many Requests", "status": 429}, {"Retry-After": "0"})


def newer(**changes: Any) -> Any:
    return pushed(digest=OTHER, **changes)


def whole(one: dict[str, Any]) -> bool:
    """The live template is all that it should be, in both halves."""
    (spec,) = templates.specs("runpod", [pushed()], FACTS, apply.ApplyOptions())
    labels = [{"port": str(port), "name": name} for port, name in LABELS]
    graph = one["graph"]
    return {name: one[name] for name in spec.body} == spec.body and (
        graph["readme"],
        graph["portsConfig"],
    ) == (spec.readme, labels)


# --- as it should go ------------------------------------------------------------------------------


def test_a_template_is_made_with_both_halves(runpod: Client) -> None:
    (done,) = runpod.run().done
    (live,) = runpod.live
    assert whole(live)
    assert done.change.action == "create"
    assert done.link == f"https://console.runpod.io/deploy?template={live['id']}"
    (entry,) = runpod.book.entries
    assert (entry.id, entry.name, entry.target) == (live["id"], DEMO.id, DEMO.id)
    assert (entry.image, entry.link) == (pushed().pinned, done.link)
    assert runpod.platform.writes() == [POST, "saveTemplate"]
    agents = {one.headers["User-Agent"] for one in runpod.platform.log}
    assert all(agent.startswith("imagegen/") for agent in agents)


def test_a_second_run_changes_nothing(runpod: Client) -> None:
    runpod.run()
    ledger = runpod.ledger.read_bytes()
    runpod.platform.log.clear()
    (done,) = runpod.run().done
    assert (done.change.action, done.change.edits) == ("keep", ())
    assert runpod.platform.writes() == []
    assert len(runpod.platform.log) == 2  # both lists, whatever the number of templates
    assert runpod.ledger.read_bytes() == ledger


def test_new_content_changes_the_template_and_keeps_its_link(runpod: Client) -> None:
    before = runpod.run().done[0].link
    (done,) = runpod.run(newer()).done
    (live,) = runpod.live
    assert done.link == before
    assert live["image"].endswith(OTHER) and OTHER in live["graph"]["readme"]
    edits = {edit.field: (edit.old, edit.new) for edit in done.change.edits}
    assert edits["image"] == (pushed().pinned, newer().pinned)
    assert set(edits) == {"image", "readme"}
    assert runpod.actions(newer()) == ["keep"]


def test_several_at_once(runpod: Client) -> None:
    images = [pushed(target) for target in RESOLUTION.targets[:3]]
    assert runpod.actions(*images) == ["create"] * 3
    assert runpod.actions(*images) == ["keep"] * 3


def test_a_plan_changes_nothing(runpod: Client) -> None:
    assert runpod.actions(apply=False, plan=True) == ["create"]
    assert runpod.platform.writes() == [] and not runpod.ledger.exists()
    runpod.run()
    ledger, live = runpod.ledger.read_bytes(), json.dumps(runpod.live)
    assert runpod.actions(newer(), apply=False, plan=True) == ["update"]
    assert (runpod.ledger.read_bytes(), json.dumps(runpod.live)) == (ledger, live)


def test_prefix_public_and_a_login_by_name(runpod: Client) -> None:
    runpod.run(prefix="me/", public=True, registry="hub")
    (live,) = runpod.live
    assert (live["name"], live["public"], live["registry"]) == (f"me/{DEMO.id}", True, "reg_2")
    assert runpod.actions(prefix="me/", public=True, registry="reg_2") == ["keep"]
    assert runpod.actions(prefix="me/", public=True) == ["update"]  # by GraphQL's labels alone
    assert runpod.live[0]["registry"] == "reg_2"


def test_an_unknown_login_is_named_with_those_that_are_there(runpod: Client) -> None:
    with pytest.raises(PlatformError, match="no login called quay") as caught:
        runpod.run(registry="quay")
    assert caught.value.hint == "it has: ghcr (reg_1), hub (reg_2)"
    runpod.platform.registries.append({"id": "reg_3", "name": "hub"})
    with pytest.raises(PlatformError, match="several logins called hub"):
        runpod.run(registry="hub")
    assert not runpod.live


# --- changed by somebody else ---------------------------------------------------------------------


def test_what_was_changed_by_hand_is_put_back_and_the_rest_stays(runpod: Client) -> None:
    runpod.run()
    (live,) = runpod.live
    live |= {"disk": 5, "args": "bash -c true", "ports": ["22/tcp", "8888/http", "6006/http"]}
    live["env"] = {"HF_TOKEN": "hf_secret", "SSH_HOST_KEYS_DIR": "/tmp"}
    live["graph"] |= {"dockerArgs": "bash -c true", "readme": "mine"}
    (done,) = runpod.run().done
    assert whole(live | {"env": {"SSH_HOST_KEYS_DIR": "/workspace/.ssh-host-keys"}})
    assert live["args"] == live["graph"]["dockerArgs"] == "bash -c true"
    assert live["env"]["HF_TOKEN"] == "hf_secret"
    edits = {edit.field: (edit.old, edit.new) for edit in done.change.edits}
    assert edits["disk"] == ("5", "40")
    assert edits["env SSH_HOST_KEYS_DIR"] == ("another value", "set")
    assert edits["readme"][0].startswith("4 characters (")
    assert "hf_secret" not in str(done) and "/tmp" not in str(done.change)
    assert runpod.actions() == ["keep"]


def test_a_renamed_template_is_found_by_its_id(runpod: Client) -> None:
    runpod.run()
    (live,) = runpod.live
    live["name"] = "my own name"
    (done,) = runpod.run().done
    assert len(runpod.live) == 1 and live["name"] == DEMO.id
    assert "renamed to my own name by hand" in done.notes[0]
    assert ("name", "my own name", DEMO.id) in [
        (edit.field, edit.old, edit.new) for edit in done.change.edits
    ]


def test_a_deleted_template_is_made_anew(runpod: Client) -> None:
    runpod.run()
    (gone,) = runpod.platform.templates
    runpod.platform.templates.clear()
    (done,) = runpod.run().done
    assert done.change.action == "create" and f"{gone} was deleted by hand" in done.notes[0]
    assert [entry.id for entry in runpod.book.entries] == [done.id] != [gone]
    assert runpod.actions() == ["keep"]


def test_a_remake_that_fails_leaves_no_dead_link(runpod: Client) -> None:
    """Neither the one that was deleted by hand nor the one that was removed again is remembered."""
    runpod.run()
    runpod.platform.templates.clear()
    runpod.platform.fault("saveTemplate", answer=GRAPHQL_NO, times=-1)
    with pytest.raises(PlatformError, match="was removed again"):
        runpod.run()
    assert not runpod.live and not runpod.book.entries
    runpod.platform.faults.clear()
    assert runpod.actions() == ["create"]


def test_a_remake_that_is_interrupted_leaves_one_entry(runpod: Client) -> None:
    runpod.run()
    runpod.platform.templates.clear()
    runpod.platform.fault("saveTemplate", answer=GRAPHQL_NO, times=-1)
    runpod.platform.fault("DELETE", answer=problem(500, "Internal Server Error", "x"), times=-1)
    with pytest.raises(PlatformError, match="could not be removed"):
        runpod.run()
    (live,) = runpod.live
    assert [(e.id, e.content) for e in runpod.book.entries] == [(live["id"], "")]
    assert published.table(runpod.ledger) == published.NONE
    runpod.platform.faults.clear()
    assert runpod.actions() == ["complete"]
    assert [entry.id for entry in runpod.book.entries] == [live["id"]]


@pytest.mark.parametrize("dead", ["tpl0", "tpl9"])
def test_two_entries_of_one_name_become_one(runpod: Client, dead: str) -> None:
    """As an interrupted remake left them before."""
    (done,) = runpod.run().done
    (entry,) = runpod.book.entries
    runpod.book.put(replace(entry, id=dead))
    runpod.run()
    assert [entry.id for entry in runpod.book.entries] == [done.id]


@pytest.mark.parametrize("plan", [False, True])
def test_one_failure_is_one_failure(runpod: Client, plan: bool) -> None:
    images = [pushed(target) for target in RESOLUTION.targets[:3]]
    names = [image.target.id for image in images]
    for _ in range(2):
        runpod.platform.put(names[1])
    with pytest.raises(PlatformError) as caught:
        runpod.run(*images, apply=not plan, plan=plan)
    words = str(caught.value).splitlines()
    done = "compared" if plan else "as they should be"
    assert words[0] == f"1 of 3 templates failed; the others are {done}"
    assert words[1].startswith(f"{names[1]}: RunPod has more than one template")
    assert len(words) == 2 and "delete or rename" in caught.value.hint
    made = [] if plan else [names[0], names[2]]
    assert sorted(e.name for e in runpod.book.entries) == sorted(made)


def test_a_template_of_that_name_that_the_ledger_does_not_know_is_taken_over(
    runpod: Client,
) -> None:
    id_ = runpod.platform.put(DEMO.id, disk=3)
    assert runpod.run().done[0].id == id_
    assert len(runpod.live) == 1 and whole(runpod.live[0])


@pytest.mark.parametrize("renamed", [False, True])
def test_two_templates_are_an_error_that_names_both(runpod: Client, renamed: bool) -> None:
    runpod.run()
    (first,) = runpod.platform.templates
    if renamed:
        runpod.live[0]["name"] = "other"
    second = runpod.platform.put(DEMO.id)
    before = json.dumps(runpod.live)
    with pytest.raises(PlatformError, match=rf"{first}|{second}") as caught:
        runpod.run()
    assert first in str(caught.value) and second in str(caught.value)
    assert json.dumps(runpod.live) == before


def test_a_lost_ledger_makes_no_second_template(runpod: Client) -> None:
    runpod.run()
    runpod.ledger.unlink()
    assert runpod.actions() == ["update"]  # nobody can read whether the labels are there
    assert runpod.actions() == ["keep"]
    assert len(runpod.live) == 1


def test_two_runs_at_once_make_one_template(runpod: Client, logged: list[str]) -> None:
    hold = runpod.platform.fault(LIST, "block", after=False)
    first = threading.Thread(target=runpod.run)
    # let go, the connection is closed, and the first one asks again
    first.start()
    assert hold.reached.wait(10)
    second = threading.Thread(target=runpod.run)
    second.start()
    second.join(0.3)
    assert second.is_alive() and any("waiting for it" in line for line in logged)
    hold.go.set()
    first.join(10)
    second.join(10)
    assert runpod.platform.writes() == [POST, "saveTemplate"]
    assert len(runpod.live) == 1


# --- what nobody has verified: right either way ---------------------------------------------------


def test_env_is_right_whether_a_patch_merges_or_replaces(runpod: Client) -> None:
    runpod.platform.merges_env = True
    test_what_was_changed_by_hand_is_put_back_and_the_rest_stays(runpod)


@pytest.mark.parametrize("stale", [1, 3])
def test_readers_may_be_behind(runpod: Client, stale: int) -> None:
    runpod.platform.stale = stale
    assert runpod.actions() == ["create"]
    assert runpod.actions(newer()) == ["update"]
    (live,) = runpod.live
    assert live["image"].endswith(OTHER) and OTHER in live["graph"]["readme"]


def test_a_save_that_drops_the_cuda_versions_is_followed_by_a_patch(runpod: Client) -> None:
    runpod.platform.save_drops_cuda = True
    runpod.run()
    assert whole(runpod.live[0])
    assert runpod.platform.writes() == [POST, "saveTemplate", "PATCH /v2/templates/tpl0001"]
    assert runpod.actions() == ["keep"]


def test_a_patch_that_drops_the_readme_is_followed_by_a_save(runpod: Client) -> None:
    runpod.platform.patch_drops_readme = True
    runpod.run()
    assert runpod.actions(newer()) == ["update"]
    assert OTHER in runpod.live[0]["graph"]["readme"]


def test_what_does_not_stick_is_named(runpod: Client) -> None:
    """Either API undoes what the other did: nothing can be right, and it is said which fields."""
    runpod.platform.patch_drops_readme = runpod.platform.save_drops_cuda = True
    with pytest.raises(PlatformError, match="does not show it so: ") as caught:
        runpod.run()
    assert "allowedCudaVersions" in str(caught.value)
    assert "was removed again" in str(caught.value)
    assert not runpod.live and not runpod.book.entries


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["lost on the way", "stored all the same"])
@pytest.mark.parametrize("kind", ["answer", "drop", "cut", "garbage", "slow"])
def test_a_post_without_answer_makes_one_template(runpod: Client, kind: Any, after: bool) -> None:
    runpod.platform.fault(POST, kind, after=after, answer=problem(502, "Bad Gateway", "x"))
    assert runpod.actions() == ["create"]
    (live,) = runpod.live
    assert whole(live)
    assert runpod.platform.writes().count(POST) == 1 if after or kind == "slow" else 2
    assert any("looking whether it was made" in line for line in runpod.said)


def test_a_post_that_is_never_answered_ends(runpod: Client) -> None:
    runpod.platform.fault(POST, "drop", times=-1)
    with pytest.raises(PlatformError, match="the connection was cut"):
        runpod.run()
    assert runpod.platform.writes() == [POST] * 3 and not runpod.live


def test_a_second_post_is_not_sent_for_one_that_was_stored_late(runpod: Client) -> None:
    """The 2nd of two templates is stored, its answer is lost, and readers are behind."""
    runpod.platform.stale = 2
    runpod.platform.fault(POST, "drop", after=True, skip=1)
    images = [pushed(target) for target in RESOLUTION.targets[:2]]
    assert runpod.actions(*images) == ["create"] * 2
    assert len(runpod.live) == 2


GRAPHQL_NO = Answer(200, {"errors": [{"message": "Something went wrong."}], "data": None})


@pytest.mark.parametrize("of", ["saveTemplate", "myself"])
@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("answer", GRAPHQL_NO),
        ("answer", Answer(410, {"message": "Gone"})),
        ("answer", Answer(503, "busy", kind="text/plain")),
        ("answer", Answer(200, {"data": {"saveTemplate": None, "myself": None}})),
        ("answer", Answer(200, ["?"])),
        ("drop", None),
        ("cut", None),
        ("garbage", None),
    ],
)
def test_a_second_half_that_fails_undoes_the_first(
    runpod: Client, of: str, kind: Any, answer: Answer
) -> None:
    skip = 1 if of == "myself" else 0  # the first look is before anything was made
    runpod.platform.fault(of, kind, answer=answer, times=-1, skip=skip)
    with pytest.raises(PlatformError, match="half-made template tpl0001 was removed again"):
        runpod.run()
    assert not runpod.live and not runpod.book.entries
    runpod.platform.faults.clear()
    assert runpod.actions() == ["create"]
    assert whole(runpod.live[0])


def test_a_first_half_that_cannot_be_undone_is_completed_by_the_next_run(runpod: Client) -> None:
    runpod.platform.fault("saveTemplate", answer=GRAPHQL_NO, times=-1)
    runpod.platform.fault("DELETE", answer=problem(500, "Internal Server Error", "x"), times=-1)
    with pytest.raises(PlatformError, match=r"could not be removed .* the next run completes it"):
        runpod.run()
    (live,) = runpod.live
    assert not live["graph"]["readme"]
    (entry,) = runpod.book.entries
    assert (entry.id, entry.content) == (live["id"], "")
    runpod.platform.faults.clear()
    (done,) = runpod.run().done
    assert (done.change.action, done.id) == ("complete", live["id"])
    assert [whole(one) for one in runpod.live] == [True]
    assert runpod.actions() == ["keep"]


def test_a_failed_update_is_completed_by_the_next_run(runpod: Client) -> None:
    runpod.run()
    runpod.platform.fault("saveTemplate", answer=GRAPHQL_NO, times=-1)
    with pytest.raises(PlatformError, match=r"Something went wrong\."):
        runpod.run(newer())
    assert len(runpod.live) == 1  # what was there before is nothing to undo
    runpod.platform.faults.clear()
    assert runpod.actions(newer()) == ["update"]
    assert runpod.actions(newer()) == ["keep"]


def test_what_was_interrupted_by_the_user_is_undone(
    runpod: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("imagegen.platforms.runpod.client.RunPod._save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runpod.run()
    assert not runpod.live and not runpod.book.entries
    assert f"{DEMO.id}: the half-made template tpl0001 was removed again" in runpod.said


@pytest.mark.parametrize("again", [False, True], ids=["refused", "interrupted once more"])
def test_what_cannot_be_undone_after_an_interrupt_is_said(
    runpod: Client, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    first, second = (pushed(target) for target in RESOLUTION.targets[:2])
    runpod.run(first)
    monkeypatch.setattr("imagegen.platforms.runpod.client.RunPod._save", interrupted)
    if again:
        monkeypatch.setattr("imagegen.platforms.runpod.client.RunPod.delete", interrupted)
    runpod.platform.fault("DELETE", answer=problem(500, "Internal Server Error", "x"), times=-1)
    runpod.said.clear()
    with pytest.raises(KeyboardInterrupt):
        runpod.run(first, second)
    words = "may still be there" if again else r"could not be removed \(.*\)"
    at = f"{second.target.id}: "
    assert [line for line in runpod.said if line.startswith(f"{first.target.id}: keep, tpl")]
    assert [line for line in runpod.said if re.match(f"{re.escape(at)}the half-.* {words}", line)]
    assert runpod.said[-1].startswith(f"{at}stopped on the way; the next run finds")
    monkeypatch.undo()
    runpod.platform.faults.clear()
    assert runpod.actions(first, second) == ["keep", "complete"]


@pytest.mark.parametrize("of", [LIST, "saveTemplate", "myself", POST])
def test_too_many_requests_are_waited_for(runpod: Client, of: str) -> None:
    runpod.platform.fault(of, answer=TOO_MANY, times=2)
    assert runpod.actions() == ["create"]
    assert len(runpod.live) == 1 and whole(runpod.live[0])


def test_a_wait_that_is_too_long_is_told(runpod: Client) -> None:
    runpod.platform.fault(LIST, answer=replace(TOO_MANY, headers={"Retry-After": "3600"}))
    with pytest.raises(PlatformError, match=r"HTTP 429 .*asks to come back in 3600 s"):
        runpod.run()


@pytest.mark.parametrize("of", [LIST, POST])
def test_who_sends_us_on_gets_no_key(runpod: Client, of: str) -> None:
    with served(RunPod()) as other:
        to = {"Location": f"{other.url}/v2/templates"}
        runpod.platform.fault(of, answer=Answer(307, {"title": "Moved"}, to), times=-1)
        with pytest.raises(PlatformError, match="HTTP 307 Temporary Redirect"):
            runpod.run()
        assert not other.log
    assert not runpod.live


@pytest.mark.parametrize("kind", ["answer", "drop", "cut", "slow"])
def test_what_passes_is_repeated_where_that_is_safe(runpod: Client, kind: Any) -> None:
    runpod.run()
    for of in (LIST, "myself", "saveTemplate", "PATCH /v2/templates/tpl0001"):
        runpod.platform.fault(of, kind, after=of != LIST)
    assert runpod.actions(newer()) == ["update"]
    assert runpod.actions(newer()) == ["keep"]


@pytest.mark.parametrize(
    ("key", "message", "hint"),
    [
        ("wrong", "HTTP 401 Unauthorized: Unauthorized; invalid API key", "RUNPOD_API_KEY is not"),
        (READER, "HTTP 403 Forbidden.*lacks template write", "may not write templates"),
    ],
)
def test_a_key_that_may_not_is_told_so(runpod: Client, key: str, message: str, hint: str) -> None:
    with pytest.raises(PlatformError, match=message) as caught:
        runpod.run(key=key)
    assert hint in caught.value.hint
    assert caught.value.exit_code == 9


def test_what_the_schema_refuses_is_quoted(runpod: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the platform had dropped a field and limited another."""
    from tests.support.platforms import runpod as emulated

    monkeypatch.delitem(emulated.FIELDS, "startJupyter")
    monkeypatch.setitem(emulated.FIELDS, "disk", (lambda v: v < 20, "must be below 20"))
    with pytest.raises(PlatformError) as caught:
        runpod.run()
    for part in ("HTTP 422", "$.startJupyter: unevaluated property", "$.disk: must be below 20"):
        assert part in str(caught.value)
    assert not runpod.live


def test_a_name_that_is_taken_is_the_platform_s_own_message(runpod: Client) -> None:
    runpod.platform.fault(LIST, answer=Answer(200, {"templates": []}), times=-1)
    runpod.platform.unique_in_rest = True
    runpod.platform.put(DEMO.id)
    with pytest.raises(PlatformError, match=r"HTTP 400 .*a template of that name exists"):
        runpod.run()


@pytest.mark.parametrize(
    "answer", [{"templates": [{"id": 1}]}, {"templates": None}, [], None, {"x": 1}]
)
def test_a_list_that_is_none_is_no_empty_list(runpod: Client, answer: object) -> None:
    """Or a second template would be made."""
    runpod.platform.put(DEMO.id)
    runpod.platform.fault(LIST, answer=Answer(200, answer), times=-1)
    with pytest.raises(PlatformError, match="not what its schema says"):
        runpod.run()
    assert runpod.platform.writes() == []
