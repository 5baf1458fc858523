"""The command line itself: what it prints, what it never prints, and, as a process, kill -9."""

from __future__ import annotations

import base64
import json
import re
import signal
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.line import Ended
from tests.support.platforms.runpod import RunPod
from tests.support.platforms.server import KEY, READER, Answer, Asked, Platform, served
from tests.support.values import DEMO, DIGEST, RESOLUTION
from tests.unit.platforms.live.conftest import Client
from tests.unit.platforms.live.test_runpod import LIST, POST, whole
from tests.unit.platforms.live.test_vast import DELETE, SEARCH
from tests.unit.platforms.live.test_vast import POST as VAST_POST

OTHER = "sha256:" + "e" * 64
ONE = "GET /v2/templates/tpl0001"


def secret_free(done: Ended) -> None:
    text = done.stdout + done.stderr
    for form in (KEY, READER, base64.b64encode(KEY.encode()).decode(), KEY[4:-4]):
        assert form not in text
    assert "Bearer" not in text


# --- what is printed ------------------------------------------------------------------------------


def test_without_a_key_it_says_what_would_be_sent(runpod: Client, vast: Client) -> None:
    nothing = {"RUNPOD_API_KEY": "", "VAST_API_KEY": ""}
    first, second = runpod.line(**nothing), vast.line(**nothing)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    (row,) = json.loads(first.stdout)
    assert row["POST /v2/templates"]["image"].endswith(DIGEST)
    assert DEMO.id in row["saveTemplate"]["readme"]
    (row,) = json.loads(second.stdout)
    assert DIGEST in row["POST /api/v0/template/"]["desc"]
    assert not runpod.platform.log and not vast.platform.log


@pytest.mark.parametrize("name", ["runpod", "vast"])
def test_apply_twice_and_what_differs(name: str, request: pytest.FixtureRequest) -> None:
    one: Client = request.getfixturevalue(name)
    first = one.line("--apply")
    assert first.returncode == 0, first.stderr
    assert len(one.live) == 1
    link = one.book.entries[0].link
    assert first.stdout == f"{DEMO.id}: created\n  {link}\n"
    second = one.line("--apply")
    assert second.stdout == f"{DEMO.id}: nothing to change\n  {link}\n"
    planned = one.line("--plan", PUSHED_DIGEST=OTHER)
    assert f"{DEMO.id}: would be " in planned.stdout
    assert OTHER in planned.stdout and len(one.live) == 1
    third = one.line("--apply", "--format", "json", PUSHED_DIGEST=OTHER)
    (row,) = json.loads(third.stdout)["templates"]
    assert row["action"] == ("update" if name == "runpod" else "replace")
    assert {edit["field"] for edit in row["edits"]} >= {"readme"}
    for done in (first, second, planned, third):
        secret_free(done)
    assert KEY not in one.ledger.read_text()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("", "RUNPOD_API_KEY is not set"),
        (" \n", "RUNPOD_API_KEY is not set"),
        ("rpa_abc\x01def", "control characters"),
        ("rpa_abc\ndef", "control characters"),
        ("schlüssel", "no key has"),
    ],
)
def test_a_key_that_is_none_is_refused_unseen(runpod: Client, key: str, words: str) -> None:
    done = runpod.line("--apply", RUNPOD_API_KEY=key)
    assert done.returncode == 2 and words in done.stderr
    assert "rpa_abc" not in done.stderr and "schl" not in done.stderr
    assert not runpod.platform.log


def test_spaces_around_a_key_are_none_of_it(runpod: Client) -> None:
    assert runpod.line("--apply", RUNPOD_API_KEY=f" {KEY}\n").returncode == 0


@pytest.mark.parametrize(
    "address", ["http://api.example", "ftp://127.0.0.1", "https://me:pw@api.example", "x"]
)
def test_the_key_goes_over_no_open_line(runpod: Client, address: str) -> None:
    done = runpod.line("--apply", RUNPOD_API_URL=address)
    assert done.returncode == 2 and "RUNPOD_API_URL" in done.stderr
    secret_free(done)


SLASH, PLUS = KEY.replace("/", r"\/"), KEY.replace("+", r"\u002B")
ESCAPED = (
    *(f'{{"detail": "bad key {form}"}}' for form in (SLASH, PLUS, KEY.replace("r", r"\u0072", 1))),
    json.dumps({"message": json.dumps({"detail": "x"}).replace("x", SLASH)}),  # of one behind it
    f'{{"detail": "bad address ?key={KEY.replace("/", "%2f").replace("+", "%2B")}"}}',
    f'{{"detail": "{"x" * 585} {SLASH}"}}',  # where a message is cut
)
ECHO = {"title": "Bad Request", "detail": f"key {KEY} is odd", "errors": [f"Bearer={KEY}"]}


@pytest.mark.parametrize("debug", [False, True], ids=["", "with a traceback"])
@pytest.mark.parametrize(
    ("of", "kind", "answer"),
    [
        (LIST, "answer", Answer(401, {"title": "Unauthorized", "detail": KEY})),
        (LIST, "answer", Answer(400, f"what is {KEY}\x1b[2J?", kind="text/plain")),
        (LIST, "answer", Answer(200, f"<b>{KEY}</b>", kind="text/html")),
        *((LIST, "answer", Answer(400, text, kind="text/plain")) for text in ESCAPED),
        (POST, "answer", Answer(422, ECHO)),
        ("saveTemplate", "answer", Answer(200, {"errors": [{"message": f"no {KEY}"}]})),
        (LIST, "drop", None),
    ],
)
def test_a_key_is_in_no_output(
    runpod: Client, of: str, kind: Any, answer: Answer, debug: bool
) -> None:
    runpod.platform.fault(of, kind, answer=answer, times=-1)
    more = {"IMAGEGEN_DEBUG": "1"} if debug else {}
    done = runpod.line("--apply", before=("-v",), **more)
    assert done.returncode == (1 if debug else 9), done.stderr
    assert "RunPod: " in done.stderr and "\x1b" not in done.stderr
    assert ("Traceback" in done.stderr) == debug
    if answer:
        assert "[key]" in done.stderr
    text = (done.stdout + done.stderr).replace("Bearer=[key]", "")
    assert KEY not in text and "Bearer" not in text and KEY[4:20] not in text
    assert KEY[:8] not in text and not re.search(r"123.{0,6}=", text)


def test_a_refusal_is_one_message_with_a_hint(runpod: Client) -> None:
    done = runpod.line("--apply", RUNPOD_API_KEY=READER)
    assert done.returncode == 9
    assert done.stderr.splitlines()[-2:] == [
        f"error: {DEMO.id}: RunPod: POST /v2/templates: HTTP 403 Forbidden: Forbidden; the key "
        "lacks template write",
        "  hint: the key may not write templates: give it that permission, or take another key",
    ]


def test_failures_are_in_the_json_too(runpod: Client) -> None:
    for _ in range(2):
        runpod.platform.put(DEMO.id)
    others = [target.id for target in RESOLUTION.targets if target.id != DEMO.id][:1]
    done = runpod.line(DEMO.id, *others, "--apply", "--format", "json")
    assert done.returncode == 9, done.stderr
    found = json.loads(done.stdout)
    assert [row["name"] for row in found["templates"]] == others
    ((name, error),) = [(row["name"], row["error"]) for row in found["failed"]]
    assert name == DEMO.id and "more than one template" in error
    assert f"error: 1 of 2 templates failed; the others are as they should be\n{name}: {error}" in (
        done.stderr
    )


def test_a_platform_behind_a_proxy_that_opens_tls(tmp_path: Path) -> None:
    key, ca = tmp_path / "key.pem", tmp_path / "ca.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", ca),
        ],
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(ca, key)
    with served(RunPod(), tls) as platform:
        one = Client(platform, tmp_path / "templates.json")
        refused = one.line("--apply", IMAGEGEN_CA="", SSL_CERT_FILE="")
        assert refused.returncode == 9 and "certificate" in refused.stderr.lower()
        done = one.line("--apply", "--ca", str(ca))
        assert done.returncode == 0, done.stderr
    nowhere = one.line("--apply", "--ca", str(tmp_path / "none.pem"))
    assert nowhere.returncode == 2 and "none.pem: no such file" in nowhere.stderr


class Empty(Platform):
    """A registry that has nothing."""

    def answer(self, asked: Asked) -> Answer:
        return Answer(200, {}) if asked.path == "/v2/" else Answer(404, {"errors": []})


@pytest.mark.parametrize("packing", ["zstd", "gzip"])
def test_what_is_not_published_is_told_with_the_command_that_makes_it_so(
    packing: str, line: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(Empty()) as registry:
        host = registry.url.removeprefix("http://")
        code = line(
            *("template", "vast", DEMO.id, "--compression", packing),
            *("--repository", f"{host}/me/x", "--repository", "b.example/x"),
        )
    err = capsys.readouterr().err
    assert code == 8, err
    assert f"of 2 repositories the first is used: {host}/me/x\n" in err
    more = "" if packing == "zstd" else " --compression gzip"
    command = f"imagegen push {DEMO.id} --repository {host}/me/x{more}"
    assert err.splitlines()[-1] == f"  hint: {command}"


# --- kill -9 --------------------------------------------------------------------------------------


def killed(one: Client, of: str, *words: str, after: bool, skip: int = 0) -> None:
    """Run the command, hold its request, and kill it there."""
    hold = one.platform.fault(of, "block", after=after, skip=skip)
    with one.started("--apply", *words) as process:
        assert hold.reached.wait(60), process.communicate(timeout=5)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    hold.go.set()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("of", "skip"), [(LIST, 0), ("myself", 0), (POST, 0), (ONE, 0), ("saveTemplate", 0), (ONE, 1)]
)
def test_a_run_killed_anywhere_is_finished_by_the_next(
    runpod: Client, of: str, skip: int, after: bool
) -> None:
    killed(runpod, of, after=after, skip=skip)
    half = [one for one in runpod.live if not one["graph"]["readme"]]
    (done,) = runpod.run().done
    assert [whole(one) for one in runpod.live] == [True]
    if half:
        assert (done.change.action, done.id) == ("complete", half[0]["id"])
    assert runpod.actions() == ["keep"]
    assert [entry.id for entry in runpod.book.entries] == [done.id]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("same", [True, False], ids=["", "the platform knows nothing again"])
@pytest.mark.parametrize("of", [SEARCH, VAST_POST])
def test_a_killed_run_makes_no_second_template(
    vast: Client, of: str, same: bool, after: bool
) -> None:
    vast.platform.same_content_same_template = same
    killed(vast, of, after=after)
    vast.run()
    assert len(vast.live) == 1
    assert vast.actions() == ["keep"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_killed_clearing_up_is_finished_by_the_next(vast: Client, after: bool) -> None:
    vast.line("--apply", PUSHED_DIGEST=OTHER)
    vast.run()
    killed(vast, DELETE, "--prune-old", after=after)
    vast.run(prune=True)
    assert len(vast.live) == len(vast.book.entries) == 1
