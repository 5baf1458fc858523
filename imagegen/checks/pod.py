"""A started container as its user reaches it: SSH, HTTP; and what a check says of what it finds."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from imagegen.util import process
from imagegen.util.process import Ran

if TYPE_CHECKING:
    from imagegen.checks.contract import Trial
    from imagegen.engine.container import Box

SSH, JUPYTER = 22, 8888
LOOPBACK = re.compile(r"(?:0{16}FFFF0000)?.{6}7F|0{24}01000000")
"""127.0.0.0/8, also as an address of IPv6, and ::1, as the kernel writes them."""

OPTIONS = (
    *("BatchMode=yes", "IdentitiesOnly=yes", "ConnectTimeout=5", "LogLevel=ERROR"),
    *("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null"),
)
"""Nothing of this machine's own configuration of SSH counts."""


class Skip(Exception):
    """Raised by a check that does not apply here; a skipped check has not passed."""


class Failed(Exception):
    """Raised by a check that found something else than it expected."""


def need(condition: object, sentence: str) -> None:
    """Fail with ``sentence`` unless ``condition`` holds."""
    if not condition:
        raise Failed(sentence)


def same(what: str, expected: object, found: object) -> None:
    """Fail unless the two are equal."""
    need(expected == found, f"{what}: expected {expected!r}, found {found!r}")


class Pod:
    """A started container, as its user reaches it."""

    def __init__(self, trial: Trial, box: Box) -> None:
        self.trial, self.box = trial, box

    def until(self, probe: Callable[[], bool], what: str, patience: float = 0) -> float:
        """Wait until ``probe`` holds; returns the seconds since the pod's start.

        Raises:
            Failed: naming ``what``, with the pod's own last words, when ``patience`` (the trial's)
                since its start, and a quarter of it since the call, are over, or the pod has ended.
        """
        patience = patience or self.trial.settings.patience
        end = max(self.box.began + patience, time.monotonic() + patience / 4)
        while not probe():
            over = time.monotonic() > end
            if over or not self.box.state().running:
                why = f"not within {self.age():.0f} s" if over else "the pod ended"
                raise Failed(f"{what}: {why}; it said: {self.box.logs(15).strip()[-600:]!r}")
            time.sleep(0.1)
        return self.age()

    def age(self) -> float:
        """Seconds since its start, or its last one."""
        return time.monotonic() - self.box.began

    # --- SSH --------------------------------------------------------------------------------------

    def ssh(
        self,
        *command: str,
        key: str = "ed25519",
        options: tuple[str, ...] = (),
        stdin: str = "",
        timeout: float = 60,
    ) -> Ran:
        """Run a command over SSH for at most ``timeout`` seconds; waits while nothing answers."""
        words = [word for option in (*OPTIONS, *options) for word in ("-o", option)]
        argv = ("ssh", "-F", "/dev/null", "-i", str(self.trial.key(key)), *words)
        where = ("-p", str(self._port(SSH)), f"root@{self.box.host}")
        done = Ran(code=255, out="", err="")

        def answered() -> bool:
            nonlocal done
            done = process.result(*argv, *where, *command, timeout=timeout, stdin=stdin)
            early = ("Connection refused", "Connection reset", "Connection closed", "kex_exchange")
            return done.code != 255 or not any(words in done.err for words in early)

        self.until(answered, "SSH")
        return done

    def login(self, key: str = "ed25519") -> float:
        """Log in by SSH; returns the seconds since the pod's start."""
        done = self.ssh("true", key=key)
        need(done.code == 0, f"SSH with the {key} key: expected a login, found {done.err.strip()}")
        return self.age()

    def said(self, *command: str, stdin: str = "", timeout: float = 60) -> str:
        """The output of a command that must succeed over SSH."""
        done = self.ssh(*command, stdin=stdin, timeout=timeout)
        said = f"found {done.code}: {done.err.strip()[-400:]}"
        need(done.code == 0, f"`ssh pod {' '.join(command)[:120]}`: expected 0, {said}")
        return done.out

    def copy(self, program: str, local: Path, remote: str) -> None:
        """Copy ``local`` to ``remote`` by ``scp``, or by ``sftp`` with a batch from its input."""
        host, port = self.box.host, str(self._port(SSH))
        to, batch = f"root@{host}", f"put {local} {remote}\n"
        last = (str(local), f"{to}:{remote}") if program == "scp" else ("-b", "-", to)
        words = [word for option in OPTIONS for word in ("-o", option)]
        key = str(self.trial.key())
        argv = (program, "-F", "/dev/null", "-P", port, "-i", key, *words)
        done = process.result(*argv, *last, timeout=60, stdin=batch if program == "sftp" else "")
        need(done.code == 0, f"{program}: expected exit status 0, found {done.code}: {done.err}")

    def host_key(self, kind: str = "ed25519") -> str:
        """sshd's public host key."""
        found = ""

        def scanned() -> bool:
            nonlocal found
            port = str(self._port(SSH))
            argv = ("ssh-keyscan", "-T", "2", "-t", kind, "-p", port, self.box.host)
            found = process.result(*argv, timeout=20).out
            return bool(found.strip())

        self.until(scanned, f"sshd's {kind} host key")
        return found.split()[-1]

    def _port(self, port: int) -> int:
        """Where a port of the pod is on this machine; one that has ended has none."""
        if not self.box.state().running:
            raise Failed(f"the pod ended; it said: {self.box.logs(15).strip()[-600:]!r}")
        return self.box.port(port)

    # --- HTTP -------------------------------------------------------------------------------------

    def url(self, path: str, port: int = JUPYTER) -> str:
        """The address of a published port."""
        where = f"{self.box.host}:{self._port(port)}"
        return f"http://{where}{path}"

    def get(
        self,
        path: str,
        *,
        port: int = JUPYTER,
        session: requests.Session | None = None,
        **headers: str,
    ) -> int:
        """The status of a GET, asked again while nothing answers yet."""
        status, asking = 0, session or requests.Session()
        asking.trust_env = False  # a proxy of this machine is not between us

        def answered() -> bool:
            nonlocal status
            try:
                url = self.url(path, port)
                status = asking.get(url, headers=headers, timeout=20).status_code
            except requests.RequestException:
                return False
            return True

        self.until(answered, f"GET {path.partition('?')[0]} on port {port}")
        return status

    # --- inside, as the platform -----------------------------------------------------------------

    def listening(self, *, loopback: bool = True) -> set[int]:
        """The TCP ports that something listens on, the engine's own name server left out.

        ``loopback``: also what only the pod itself reaches.
        """
        text = self.box.run("cat", "/proc/net/tcp", "/proc/net/tcp6").out
        need("local_address" in text, f"/proc/net/tcp: expected the pod's ports, found {text!r}")
        rows = (line.split() for line in text.splitlines())
        local = (row[1].split(":") for row in rows if len(row) > 3 and row[3] == "0A")
        return {
            int(port, 16)
            for address, port in local
            if not address.endswith("0B00007F") and (loopback or not LOOPBACK.fullmatch(address))
        }
