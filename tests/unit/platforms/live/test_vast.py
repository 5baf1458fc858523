"""vast.ai: only new templates, so that no shared link ends unless somebody asks for it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from imagegen.commands import templates
from imagegen.errors import PlatformError, UsageError
from imagegen.platforms import apply
from tests.support.platforms.server import Answer
from tests.support.platforms.vast import ME, OTHER, TOO_OFTEN, bad
from tests.support.values import DEMO, FACTS, RESOLUTION, pushed
from tests.unit.platforms.live.conftest import Client

PATH = "/api/v0/template/"
POST, SEARCH, DELETE = (f"{method} {PATH}" for method in ("POST", "GET", "DELETE"))


def newer(letter: str = "e") -> Any:
    return pushed(digest="sha256:" + letter * 64)


def linked(one: dict[str, Any]) -> str:
    return f"https://cloud.vast.ai/?template_id={one['hash_id']}"


# --- as it should go ------------------------------------------------------------------------------


def test_a_template_is_made_as_specified(vast: Client) -> None:
    (done,) = vast.run().done
    (live,) = vast.live
    (spec,) = templates.specs("vast", [pushed()], FACTS, apply.ApplyOptions())
    assert {name: live[name] for name in spec.body} == spec.body
    assert (done.change.action, done.link) == ("create", linked(live))
    (entry,) = vast.book.entries
    assert (entry.id, entry.hash_id) == (str(live["id"]), live["hash_id"])
    assert (entry.content, entry.superseded) == (spec.content, "")


def test_a_second_run_changes_nothing(vast: Client) -> None:
    vast.run()
    ledger = vast.ledger.read_bytes()
    assert vast.actions() == ["keep"]
    assert vast.platform.writes() == [POST]
    assert vast.ledger.read_bytes() == ledger


def test_new_content_is_a_new_template_and_the_old_link_lives_on(vast: Client) -> None:
    (first,) = vast.run().done
    (done,) = vast.run(newer()).done
    assert done.change.action == "replace"
    assert "desc" in {edit.field for edit in done.change.edits}
    old, new = vast.live
    assert (linked(old), linked(new)) == (first.link, done.link)
    assert "PUT" not in str(vast.platform.writes())
    entries = {entry.id: entry.superseded for entry in vast.book.entries}
    assert entries[str(old["id"])] and not entries[str(new["id"])]
    assert vast.actions(newer()) == ["keep"]


def test_what_was_asked_for_before_is_used_again(vast: Client) -> None:
    (first,) = vast.run().done
    vast.run(newer())
    (done,) = vast.run().done
    assert (done.change.action, done.link) == ("restore", first.link)
    assert len(vast.live) == 2
    assert [e.id for e in vast.book.entries if not e.superseded] == [first.id]


def test_superseded_ones_are_deleted_only_when_asked_for(vast: Client) -> None:
    (first,) = vast.run().done
    (second,) = vast.run(newer()).done
    assert vast.run(newer()).pruned == () and len(vast.live) == 2
    planned = vast.run(newer("f"), apply=False, plan=True, prune=True)
    assert [old.entry.link for old in planned.pruned] == [first.link]
    assert len(vast.live) == 2
    found = vast.run(newer("f"), prune=True)
    assert [old.entry.link for old in found.pruned] == [first.link]
    assert {linked(one) for one in vast.live} == {second.link, found.done[0].link}
    assert {entry.id for entry in vast.book.entries} == {str(one["id"]) for one in vast.live}


def test_one_that_others_use_stays_and_says_so(vast: Client) -> None:
    (first,) = vast.run().done
    vast.run(newer())
    vast.platform.used_by_others.add(int(first.id))
    (old,) = vast.run(newer(), prune=True).pruned
    assert "Other Users are still using it" in old.kept
    assert len(vast.live) == len(vast.book.entries) == 2


def test_one_that_is_gone_already_is_forgotten(vast: Client) -> None:
    (first,) = vast.run().done
    vast.run(newer())
    vast.platform.fault(DELETE, "drop", after=True)  # it went, and its answer was lost
    assert [old.kept for old in vast.run(newer(), prune=True).pruned] == [""]
    assert first.id not in {entry.id for entry in vast.book.entries}


def test_prune_needs_to_be_told_how() -> None:
    with pytest.raises(UsageError, match="--prune-old needs --plan"):
        apply.ApplyOptions(prune=True)
    with pytest.raises(UsageError, match="which of them"):
        apply.ApplyOptions(apply=True, plan=True)
    for prefix in (" x", "x\n", "\x1b"):
        with pytest.raises(UsageError, match="--name-prefix"):
            apply.ApplyOptions(prefix=prefix)


def test_several_and_public(vast: Client) -> None:
    images = [pushed(target) for target in RESOLUTION.targets[:2]]
    assert vast.actions(*images, public=True, prefix="x-") == ["create"] * 2
    assert [one["private"] for one in vast.live] == [False, False]
    assert {one["name"] for one in vast.live} == {f"x-{i.target.id}" for i in images}
    assert vast.actions(*images, public=True, prefix="x-") == ["keep"] * 2


# --- changed by somebody else ---------------------------------------------------------------------


def test_somebody_else_s_template_of_that_name_is_none_of_ours(vast: Client) -> None:
    (spec,) = templates.specs("vast", [pushed()], FACTS, apply.ApplyOptions())
    vast.platform.put(dict(spec.body) | {"env": "-e STOLEN=1", "private": False}, creator=OTHER)
    (done,) = vast.run().done
    assert done.change.action == "create"
    assert [one["creator_id"] for one in vast.live] == [OTHER, ME]


def test_content_that_somebody_else_made_before_is_shared_with_them(vast: Client) -> None:
    (spec,) = templates.specs("vast", [pushed()], FACTS, apply.ApplyOptions(public=True))
    theirs = vast.platform.put(dict(spec.body), creator=OTHER)
    assert vast.run(public=True).done[0].id == str(theirs)
    assert vast.actions(public=True) == ["keep"]
    vast.run(newer(), public=True)
    (old,) = vast.run(newer(), public=True, prune=True).pruned
    assert "ONLY be Deleted by their Creator" in old.kept
    assert len(vast.live) == 2


def test_one_that_was_edited_by_hand_is_replaced_and_its_link_is_told_to_be_dead(
    vast: Client,
) -> None:
    (first,) = vast.run().done
    vast.platform.edit(int(first.id), env="-p 8888:8888 -e TOKEN=secret")
    (done,) = vast.run().done
    assert done.change.action == "replace"
    assert done.notes == (f"{first.id} was edited by hand, which ended its link {first.link}",)
    assert "secret" not in str(done.change.edits)
    assert len(vast.live) == 2 and vast.actions() == ["keep"]


def test_a_renamed_one_is_found_by_its_id(vast: Client) -> None:
    (first,) = vast.run().done
    vast.platform.edit(int(first.id), name="mine")
    (done,) = vast.run().done
    assert f"{first.id} was renamed to mine by hand, and found by its id" in done.notes
    assert ("name", "mine", DEMO.id) in [(e.field, e.old, e.new) for e in done.change.edits]


def test_a_deleted_one_is_made_anew(vast: Client) -> None:
    (first,) = vast.run().done
    vast.platform.templates.clear()
    (done,) = vast.run().done
    assert done.change.action == "create"
    assert done.notes == (f"{first.id} was deleted by hand: {first.link} leads nowhere",)
    assert vast.actions() == ["keep"]


@pytest.mark.parametrize("same", [True, False])
def test_a_lost_ledger_makes_no_second_template(vast: Client, same: bool) -> None:
    """Whether the platform knows its own content again, or only we do."""
    vast.platform.same_content_same_template = same
    (first,) = vast.run().done
    vast.ledger.unlink()
    (done,) = vast.run().done
    assert (done.change.action, done.link) == ("adopt", first.link)
    assert len(vast.live) == 1 and vast.actions() == ["keep"]


def test_older_ones_that_a_lost_ledger_knew_are_noted_and_can_be_deleted(vast: Client) -> None:
    (first,) = vast.run().done
    (second,) = vast.run(newer()).done
    (spec,) = templates.specs("vast", [pushed()], FACTS, apply.ApplyOptions())
    by_hand = vast.platform.put(dict(spec.body) | {"desc": "mine", "env": "-p 1:1"})
    theirs = vast.platform.put(dict(spec.body) | {"env": "-p 2:2", "private": False}, creator=OTHER)
    vast.ledger.unlink()
    planned = vast.run(newer(), apply=False, plan=True)
    assert f"{first.id} is an older one of ours" in planned.done[0].notes[0]
    found = vast.run(newer(), prune=True)
    assert (found.done[0].id, found.pruned) == (second.id, ())  # people had no day to leave it
    entries = {entry.id: entry for entry in vast.book.entries}
    assert set(entries) == {first.id, second.id}
    assert (entries[first.id].link, bool(entries[first.id].superseded)) == (first.link, True)
    assert entries[first.id].image == pushed().pinned
    assert vast.run(newer(), apply=False, plan=True).done[0].notes == ()
    (old,) = vast.run(newer(), prune=True).pruned
    assert (old.entry.id, old.kept) == (first.id, "")
    assert {str(one["id"]) for one in vast.live} == {second.id, str(by_hand), str(theirs)}


def test_a_noted_one_is_used_again_when_it_is_asked_for(vast: Client) -> None:
    (first,) = vast.run().done
    vast.run(newer())
    vast.ledger.unlink()
    vast.run(newer())
    (done,) = vast.run().done
    assert (done.change.action, done.id) == ("adopt", first.id)
    assert len(vast.live) == 2 and vast.actions() == ["keep"]


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("after", [False, True], ids=["lost on the way", "stored all the same"])
@pytest.mark.parametrize("kind", ["answer", "drop", "cut", "garbage", "slow"])
def test_a_post_without_answer_makes_one_template(
    vast: Client, kind: Any, after: bool, same: bool
) -> None:
    vast.platform.same_content_same_template = same
    vast.platform.fault(POST, kind, after=after, answer=Answer(502, "x", kind="text/plain"))
    assert vast.actions() == ["create"]
    assert len(vast.live) == 1
    assert vast.actions() == ["keep"]


def test_existing_content_is_taken_as_it_is(vast: Client) -> None:
    """``success: false`` is the platform's way to say so, as of its schema."""
    (first,) = vast.run().done
    vast.ledger.unlink()
    nothing = Answer(200, {"success": False, "msg": "No templates found"})
    vast.platform.fault(SEARCH, answer=nothing)
    assert vast.run().done[0].id == first.id
    assert len(vast.live) == 1


@pytest.mark.parametrize("of", ["GET /api/v0/users/current/", SEARCH, POST, DELETE])
def test_plain_text_for_too_many_requests_is_waited_for(vast: Client, of: str) -> None:
    vast.platform.fault(of, answer=Answer(429, TOO_OFTEN, kind="text/plain"), times=2)
    vast.run()
    vast.run(newer())
    assert vast.run(newer(), prune=True).pruned
    assert len(vast.live) == 1


def test_too_many_for_too_long_is_told(vast: Client) -> None:
    vast.platform.fault(SEARCH, answer=Answer(429, TOO_OFTEN, kind="text/plain"), times=-1)
    with pytest.raises(PlatformError, match=r"HTTP 429 .*API requests too frequent"):
        vast.run()


def test_a_refusal_in_a_good_answer_is_none(vast: Client) -> None:
    vast.platform.fault(POST, answer=Answer(200, {"success": False, "msg": "not today"}))
    with pytest.raises(PlatformError, match="not today"):
        vast.run()
    assert not vast.book.entries


def test_two_factor_login_is_named(vast: Client) -> None:
    with pytest.raises(PlatformError, match=r"HTTP 401 .*Invalid user key") as caught:
        vast.run(key="wrong")
    assert "vastai tfa login" in caught.value.hint


def test_what_is_refused_is_quoted(vast: Client) -> None:
    vast.platform.fault(POST, answer=bad(400, "invalid_args", "readme exceeds max length"))
    with pytest.raises(PlatformError, match=r"HTTP 400 .*readme exceeds max length"):
        vast.run()


@pytest.mark.parametrize("answer", [{"success": True}, {"templates": [{"id": 1}]}, [], None])
def test_a_search_that_is_none_is_no_empty_search(vast: Client, answer: object) -> None:
    vast.platform.fault(SEARCH, answer=Answer(200, answer), times=-1)
    with pytest.raises(PlatformError, match="not what its schema says"):
        vast.run()
    assert vast.platform.writes() == []


def test_one_failure_is_one_failure(vast: Client) -> None:
    images = [pushed(target) for target in RESOLUTION.targets[:3]]
    vast.platform.fault(POST, answer=bad(400, "invalid_args", "no"), skip=1)
    with pytest.raises(PlatformError, match="1 of 3 templates failed"):
        vast.run(*images)
    made = [images[0].target.id, images[2].target.id]
    assert sorted(entry.target for entry in vast.book.entries) == sorted(made)


def test_what_was_interrupted_is_said_and_found_by_the_next_run(
    vast: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as meanwhile, pytest.raises(KeyboardInterrupt):
        meanwhile.setattr("imagegen.platforms.vast.client.Vast._made", interrupted)
        vast.run()
    assert vast.said == [
        f"{DEMO.id}: stopped on the way; the next run finds what is there of it, and goes on"
    ]
    assert len(vast.live) == 1 and vast.actions() == ["adopt"]


def test_what_was_made_before_a_failure_is_in_the_ledger(vast: Client) -> None:
    images = [pushed(target) for target in RESOLUTION.targets[:2]]
    vast.platform.fault(POST, answer=bad(400, "invalid_args", "no"), skip=1)
    with pytest.raises(PlatformError, match=rf"1 of 2 .*\n{re.escape(images[1].target.id)}: vast"):
        vast.run(*images)
    assert [entry.target for entry in vast.book.entries] == [images[0].target.id]
    assert vast.actions(*images) == ["keep", "create"]
    json.loads(vast.ledger.read_text())
