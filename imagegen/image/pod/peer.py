"""Check a pod from outside, as its user: `python3 peer.py HOST --key FILE --token TOKEN`.

Runs in a second container on the pod's network. The pod must have been started with the key's
public half, the token, and the same IMAGEGEN_PROBE in its environment as this program has.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import http.cookiejar
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from suite import Suite, chosen, need, run, same

PATIENCE = 30.0  # seconds that a pod may take to answer
PROXY = "https://x-8888.proxy.runpod.net"


@dataclass(frozen=True, kw_only=True)
class Pod:
    """Where the pod is and what opens it."""

    host: str
    key: Path
    token: str

    @property
    def url(self) -> str:
        return f"http://{self.host}:8888"

    def ssh(
        self, *command: str, key: Path | None = None, options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a command over SSH with one key and nothing of the user's own configuration."""
        settings = (
            *("BatchMode=yes", "IdentitiesOnly=yes", "ConnectTimeout=5", "LogLevel=ERROR"),
            *("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"),
            *options,
        )
        argv = ["ssh", "-F", "/dev/null", "-i", os.fspath(key or self.key)]
        argv += [word for setting in settings for word in ("-o", setting)]
        return subprocess.run(
            [*argv, f"root@{self.host}", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=60,
        )

    def answer(self, *command: str) -> str:
        """The output of a command that must succeed over SSH."""
        done = self.ssh(*command)
        said = f"found {done.returncode}: {done.stderr.strip()}"
        need(done.returncode == 0, f"`ssh {self.host} {' '.join(command)}`: expected 0, {said}")
        return done.stdout

    def get(self, path: str, **headers: str) -> int:
        """The HTTP status of a GET on Jupyter, asking again while nothing listens yet."""
        request = urllib.request.Request(self.url + path, headers=headers)
        return patient(functools.partial(status, urllib.request.build_opener(), request))


def status(opener: urllib.request.OpenerDirector, request: urllib.request.Request) -> int:
    try:
        with opener.open(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def patient(call: Callable[[], int]) -> int:
    """Call until it raises no connection error, for PATIENCE seconds."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except (OSError, http.client.HTTPException):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


SUITE = Suite()
check = SUITE.check


@check("a pod that says RUNNING and cannot be logged in to")
def key_logs_in(pod: Pod) -> str:
    start = time.monotonic()
    while (done := pod.ssh("true")).returncode:
        need(
            time.monotonic() - start < PATIENCE,
            f"expected a login within {PATIENCE:g} s, found {done.stderr.strip()}",
        )
        time.sleep(0.2)
    return f"logged in after {time.monotonic() - start:.1f} s"


@check("PATH lost over SSH: no nvcc and another Python than the container's")
def programs_over_ssh(pod: Pod) -> str:
    plain = pod.answer("nvcc --version && command -v python3 nvcc")
    need("release" in plain, f"`nvcc --version`: expected a release, found {plain!r}")
    login = pod.answer("bash -lc 'nvcc --version && command -v python3 nvcc'")
    same("what a login shell finds", plain, login)
    return " ".join(plain.split()[-2:])


@check("variables of the container missing, cut or executed over SSH")
def environment_over_ssh(pod: Pod) -> str:
    need(
        "IMAGEGEN_PROBE" in os.environ, "expected IMAGEGEN_PROBE in this program's environment too"
    )
    value = os.environ["IMAGEGEN_PROBE"]
    for command in ("printenv IMAGEGEN_PROBE", "bash -lc 'printenv IMAGEGEN_PROBE'"):
        same(f"`{command}`", f"{value}\n", pod.answer(command))
    return f"{len(value)} characters arrive unchanged"


@check("a password that can be guessed")
def password_is_refused(pod: Pod) -> str:
    done = pod.ssh("true", options=("PreferredAuthentications=none",))
    need(
        "(publickey)" in done.stderr,
        f"expected the server to offer publickey alone, found {done.stderr.strip()!r}",
    )
    return "the server offers publickey alone"


@check("a pod open to every key")
def wrong_key_is_refused(pod: Pod) -> str:
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder, "key")
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=30
        )
        done = pod.ssh("true", key=key)
    need(
        "Permission denied" in done.stderr,
        f"expected 'Permission denied', found {done.returncode} {done.stderr!r}",
    )
    return "permission denied"


@check("a Jupyter that listens on 127.0.0.1 only, where no proxy reaches it")
def jupyter_answers(pod: Pod) -> str:
    same(
        "GET /api/status with the token",
        200,
        pod.get("/api/status", Authorization=f"token {pod.token}"),
    )
    return f"{pod.url}/api/status answers 200"


@check("a Jupyter that anyone can open")
def jupyter_is_closed(pod: Pod) -> str:
    same("GET /api/status without a token", 403, pod.get("/api/status"))
    same(
        "GET /api/status with a wrong token",
        403,
        pod.get("/api/status", Authorization="token wrong"),
    )
    return "403 without the token and with a wrong one"


@check("a blank page through RunPod's proxy, whose address is not the server's; foreign web sites")
def jupyter_knows_its_proxy(pod: Pod) -> str:
    # A browser's way: the token once, then a cookie. Requests with the token skip the origin check.
    opener = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    )

    def ask(path: str, **headers: str) -> int:
        return patient(
            lambda: status(opener, urllib.request.Request(pod.url + path, headers=headers))
        )

    same("GET /lab with the token", 200, ask(f"/lab?token={pod.token}"))
    same(f"GET /api/status from {PROXY}", 200, ask("/api/status", Origin=PROXY))
    same(
        "GET /api/status from https://example.com",
        404,
        ask("/api/status", Origin="https://example.com"),
    )
    return f"200 from {PROXY}, 404 from elsewhere"


def main() -> int:
    """Read the command line and run the suite."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("host", help="the pod's name or address on this network")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="the private key")
    parser.add_argument("--token", required=True, help="Jupyter's token")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="repeatable")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder, "key")  # ssh refuses a key that others may read, as a mounted one may be
        key.touch(mode=0o600)
        shutil.copyfile(given.key, key)
        return run(
            chosen(SUITE, given.only, parser), Pod(host=given.host, key=key, token=given.token)
        )


if __name__ == "__main__":
    sys.exit(main())
