"""What others' failures become: which words are shown, and which next step is named."""

from __future__ import annotations

import docker.errors
import pytest
import requests.exceptions
import urllib3.exceptions

from imagegen.engine.errors import build_error, explanation, reason, registry_errors, translated
from imagegen.errors import BuildError, EngineError, RegistryError

BUILDX = "imagegen doctor --fix"
MIRROR = "--registry names a mirror"
DISK = "docker system df"
CA = "--ca FILE"
OTHER = "other bytes than the lock names"
INDEX = "an index did not deliver"

# --- builds ---------------------------------------------------------------------------------------


def output(*step: str, end: str = 'process "/bin/bash -c x" did not complete: exit code: 1') -> str:
    """The end of what BuildKit prints of a failed step, whose lines are ``step``."""
    lines = "\n".join(f"0.{i:03} {line}" for i, line in enumerate(step))
    return f"""\
#5 [system 2/2] RUN /build/with-network /build/apt-install git
#5 12.1 404 Not Found, and tried again with success
#5 DONE 20.0s
#9 [torch 1/1] RUN /build/with-network /build/pip-install /locks/torch.txt
#9 CANCELED
#9 ERROR: {end}
------
 > [torch 1/1] RUN /build/with-network /build/pip-install /locks/torch.txt:
{lines}
------
Dockerfile:53
--------------------
  52 |     FROM cuda AS torch
  53 | >>> RUN /build/with-network /build/pip-install /locks/torch.txt
  54 |     # no space left, one would think
--------------------
ERROR: failed to solve: {end}"""


def failed(text: str) -> BuildError:
    return build_error(text.splitlines())


def test_the_failed_steps_words_are_shown_and_nothing_else() -> None:
    text = str(failed(output("compiling", "error: no such header")))
    assert text.splitlines() == [
        "the build failed",
        " > [torch 1/1] RUN /build/with-network /build/pip-install /locks/torch.txt:",
        "0.000 compiling",
        "0.001 error: no such header",
        'ERROR: failed to solve: process "/bin/bash -c x" did not complete: exit code: 1',
    ]


def test_of_several_failed_steps_the_last_is_shown() -> None:
    text = output("the first") + "\n" + output("the second")
    assert "the second" in str(failed(text))
    assert "the first" not in str(failed(text))


def test_a_long_step_is_cut_at_its_beginning_and_a_long_line_at_its_end() -> None:
    lines = str(failed(output(*(f"line {i} " + "x" * 1000 for i in range(100))))).splitlines()
    assert len(lines) == 1 + 40 + 1
    assert lines[-2].startswith("0.099 line 99 ")
    assert max(map(len, lines)) == 500


def test_without_a_step_the_last_lines_are_shown() -> None:
    text = "one\ntwo\nthree\nfour\nfive\nsix"
    assert str(failed(text)) == "the build failed\ntwo\nthree\nfour\nfive\nsix"
    assert str(failed("ERROR: no builder\nmore")) == "the build failed\nERROR: no builder"
    assert str(failed("")) == "the build failed\n"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("docker: unknown command: docker buildx\n\nRun 'docker --help'", BUILDX),
        ("docker: 'buildx' is not a docker command.\nSee 'docker --help'", BUILDX),
        ("unknown flag: --progress\nSee 'docker --help'.", BUILDX),
        (
            output(
                end="debian:12-slim: failed to resolve source metadata for "
                "docker.io/library/debian:12-slim: dial tcp: lookup registry.example"
            ),
            MIRROR,
        ),
        (
            output(
                end="nvidia/cuda:1: failed to resolve source metadata for docker.io/nvidia/cuda:1: "
                "tls: failed to verify certificate: x509: certificate signed by unknown authority"
            ),
            MIRROR,
        ),
        (output("OSError: [Errno 28] No space left on device"), DISK),
        (
            output(
                "error: Failed to fetch: `https://pypi.example/simple/torch/`",
                "  Caused by: error sending request for url (https://pypi.example/simple/torch/)",
                "  Caused by: invalid peer certificate: UnknownIssuer",
            ),
            CA,
        ),
        (output("[SSL: CERTIFICATE_VERIFY_FAILED] unable to get local issuer certificate"), CA),
        (output("Certificate verification failed: The certificate is NOT trusted."), CA),
        (output("SSL certificate problem: self-signed certificate in certificate chain"), CA),
        (
            output(
                "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
                "        Got        0123",
            ),
            OTHER,
        ),
        (output("error: Failed to download `x`", "  Caused by: Hash mismatch for `x==1`"), OTHER),
        (output("E: Failed to fetch http://apt.example/y.deb  Hash Sum mismatch"), OTHER),
        (
            output("E: Failed to fetch http://apt.example/y.deb  404  Not Found [IP: 10.0.0.1 80]"),
            INDEX,
        ),
        (
            output("HTTP status client error (404 Not Found) for url (https://torch.example/)"),
            INDEX,
        ),
        (output("Could not resolve 'apt.example'"), INDEX),
        (output("ReadTimeoutError: Read timed out."), INDEX),
        (output("curl: (56) Connection reset by peer"), INDEX),
        (output("ERROR: No matching distribution found for torch==2.11.0"), INDEX),
        (output("/bin/bash: line 1: nvcc: command not found"), ""),
        (output("error: identifier 'x' is undefined", "4045 errors detected"), ""),
        (output("AssertionError: file not found: /opt/venv/lib/libcudart.so.12"), ""),
        (output(), ""),
    ],
)
def test_the_next_step_comes_from_the_failed_steps_own_words(text: str, hint: str) -> None:
    found = failed(text).hint
    assert (hint in found) if hint else not found


def test_a_download_that_was_repeated_with_success_is_no_cause() -> None:
    """The whole output has a 404, the failed step has none."""
    text = output("nvcc: command not found")
    assert "404" in text
    assert failed(text).hint == ""


# --- an engine ------------------------------------------------------------------------------------


def chained() -> OSError:
    try:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as inner:
            raise urllib3.exceptions.ProtocolError("aborted", inner) from inner
    except urllib3.exceptions.HTTPError as middle:
        error = requests.exceptions.ConnectionError("('Connection aborted.', ...)")
        error.__cause__ = middle
        return error


FOREIGN = [
    (docker.errors.APIError("500 Server Error", explanation="no such thing"), "no such thing"),
    (docker.errors.APIError("500 Server Error"), "500 Server Error"),
    (docker.errors.DockerException("bad host"), "bad host"),
    (requests.exceptions.ReadTimeout("read timed out"), "read timed out"),
    (urllib3.exceptions.ProtocolError("connection broken"), "connection broken"),
    (ConnectionResetError(104, "reset by peer"), "[Errno 104] reset by peer"),
    (BrokenPipeError(), "BrokenPipeError"),
    (chained(), "[Errno 111] Connection refused"),
]
foreign = pytest.mark.parametrize(("error", "words"), FOREIGN, ids=lambda v: type(v).__name__)


@foreign
def test_an_engines_failure_is_ours_with_its_own_words(error: Exception, words: str) -> None:
    assert explanation(error) == words
    with pytest.raises(EngineError) as caught, translated("loading x.tar"):
        raise error
    assert str(caught.value) == f"loading x.tar: {words}"
    assert caught.value.hint == ""
    assert caught.value.__cause__ is error


def test_an_engine_without_gpus_says_where_to_go() -> None:
    words = 'could not select device driver "" with capabilities: [[gpu]]'
    with pytest.raises(EngineError) as caught, translated("running"):
        raise docker.errors.APIError("500", explanation=words)
    assert "GPU machine" in caught.value.hint


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), EngineError("ours")])
def test_what_is_not_theirs_is_let_through(error: BaseException) -> None:
    for context in (translated("x"), registry_errors("h/x:t")):
        with pytest.raises(type(error)) as caught, context:
            raise error
        assert caught.value is error


def test_the_innermost_words_are_the_reason() -> None:
    assert reason(ValueError()) == "ValueError"
    assert reason(chained()) == "[Errno 111] Connection refused"


# --- a registry -----------------------------------------------------------------------------------

REF = "registry.example:5000/me/x:tag"


@foreign
def test_a_registrys_failure_names_the_reference_and_moved_nothing(
    error: Exception, words: str
) -> None:
    with pytest.raises(RegistryError) as caught, registry_errors(REF):
        raise error
    assert str(caught.value) == f"{REF}: {words}"
    assert caught.value.hint.startswith("is the registry at registry.example:5000 up?")
    assert "was not moved" in caught.value.hint


@pytest.mark.parametrize(
    "words",
    [
        "unauthorized: authentication required",
        "UNAUTHORIZED",
        "no basic auth credentials",
        "requested access to the resource is denied",
        "denied: permission_denied: write_package",
        "pull access denied for x",
    ],
)
def test_a_registry_that_refuses_the_login_says_how_to_log_in(words: str) -> None:
    with pytest.raises(RegistryError) as caught, registry_errors(REF):
        raise docker.errors.APIError("401", explanation=words)
    assert str(caught.value) == f"registry.example:5000 refused the login for {REF}: {words}"
    assert caught.value.hint == "docker login registry.example:5000"
