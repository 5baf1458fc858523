"""What differs between a template as it should be and as it is, and what is shown of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.platforms.diff import Edit, change, differing

WANT: dict[str, Any] = {
    "name": "a",
    "disk": 40,
    "ports": ["8888/http", "22/tcp"],
    "mounts": {"persistent": {"size": 30, "path": "/workspace"}},
    "env": {"A": "1"},
    "public": False,
    "readme": "text",
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.dictionaries(st.sampled_from([*WANT, "args", "registry"]), VALUES)


def test_nothing_there_is_a_create() -> None:
    assert change(WANT, None).action == "create"


@given(FIELDS, FIELDS)
def test_what_is_as_wanted_is_kept_whatever_else_is_there(
    want: dict[str, Any], more: dict[str, Any]
) -> None:
    assert change(want, more | want).edits == ()
    assert differing(want, more | want) == {}


@given(FIELDS, FIELDS)
def test_what_is_sent_makes_it_so(want: dict[str, Any], have: dict[str, Any]) -> None:
    """A PATCH that replaces the fields it holds leaves nothing to do."""
    assert change(want, have | differing(want, have)).edits == ()


@given(FIELDS, FIELDS)
def test_what_is_shown_is_what_is_sent(want: dict[str, Any], have: dict[str, Any]) -> None:
    fields = {edit.field.partition(" ")[0] for edit in change(want, have).edits}
    assert fields == set(differing(want, have))


@pytest.mark.parametrize(
    ("have", "edits"),
    [
        ({"ports": ["22/tcp", "8888/http"]}, []),
        ({"mounts": {"persistent": {"size": 30, "path": "/workspace", "x": 1}, "n": []}}, []),
        ({"env": {"A": "1", "B": "2"}}, []),
        ({"disk": 40.0}, []),
        ({"disk": 41}, [Edit("disk", "41", "40")]),
        ({"ports": ["22/tcp"]}, [Edit("ports", '["22/tcp"]', '["8888/http", "22/tcp"]')]),
        ({"public": 0}, [Edit("public", "0", "false")]),
        ({"public": None}, [Edit("public", "(none)", "false")]),
        ({"env": {"A": "hf_x", "B": "2"}}, [Edit("env A", "another value", "set")]),
        ({"env": None}, [Edit("env A", "not set", "set")]),
        ({"name": "b"}, [Edit("name", "b", "a")]),
        (
            {"readme": "t"},
            [Edit("readme", "1 characters (e3b98a4d)", "4 characters (982d9e3e)")],
        ),
    ],
)
def test_fields_are_compared_as_they_are_meant(have: dict[str, Any], edits: list[Edit]) -> None:
    assert list(change(WANT, WANT | have).edits) == edits


def test_variables_that_somebody_set_are_sent_back() -> None:
    assert differing(WANT, WANT | {"env": {"B": "2"}}) == {"env": {"A": "1", "B": "2"}}


def test_a_template_without_its_readme_is_half_made() -> None:
    assert change(WANT, WANT | {"readme": ""}).action == "complete"
    assert change(WANT, WANT | {"readme": "", "disk": 1}).action == "update"
    assert change(WANT, WANT | {"readme": "x"}).action == "update"


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        ("-p 8888:8888", "-p 8888:8888"),
        ("-e HF_TOKEN='hf_x y' -p 80:80 -e B=hf_x", "-e B -e HF_TOKEN -p 80:80"),
        ("-h hf_x -p 1:1", "-p 1:1 and 2 words more"),
        ("-eHF=hf_x", " and 1 words more".strip()),
        ("-e HF='hf_x", "(not readable)"),
        ("", "(none)"),
    ],
)
def test_of_docker_s_flags_no_value_is_shown(env: str, shown: str) -> None:
    (edit,) = change({"env": "-p 2:2"}, {"env": env}).edits
    assert edit == Edit("env", shown, "-p 2:2")


def test_a_login_is_not_shown() -> None:
    (edit,) = change({"docker_login_pass": ""}, {"docker_login_pass": "secret"}).edits
    assert edit.old == "(hidden)"
