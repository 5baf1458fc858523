"""RunPod's contract, R1-R20: pods as RunPod starts them, with the variables that it sets."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import time
from contextlib import suppress

from imagegen.checks.contract import NASTY, Suite, Trial
from imagegen.checks.jupyter import Browser
from imagegen.checks.pod import JUPYTER, SSH, Failed, Pod, need, same
from imagegen.checks.shared import works_on_its_gpu
from imagegen.engine.container import Start, Volume
from imagegen.platforms.runpod.contract_image import IMAGE

SUITE = Suite("runpod")
SUITE.update(IMAGE)

HOST = "x-8888.proxy.runpod.net"
PROXY = f"https://{HOST}"
"""What a browser has for the pod's address: its Origin, and to the pod maybe the Host too."""

STOP = 10
"""Seconds after which a pod that is told to end is killed."""

MODULES = """
import importlib, importlib.util

def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False

for name in ("torch", "flash_attn", "flash_attn_interface", "flash_attn.cute"):
    if there(name):
        print(name, getattr(importlib.import_module(name), "__version__", ""))
"""
"""torch, and flash-attn of any generation; one that is there and does not load is an error."""

EXPOSED = r"""
read -r token && read -r secret || exit 9
cd / && for text in "$token" "$secret"; do
    find etc run root tmp var/log workspace -type d ! -perm -001 -prune \
        -o -type f -perm -004 -exec grep -lF -e "$text" {} + 2>/dev/null
    for file in proc/[0-9]*/cmdline; do
        case $(tr '\0' ' ' <"$file" 2>/dev/null) in *"$text"*) echo "$file" ;; esac
    done
done
true"""
"""Which files everyone in the pod can read that hold one of two secrets, given on its input."""


def sk_key() -> str:
    """A public key as a security key has it; no private half is needed to write one down."""
    kind = b"sk-ssh-ed25519@openssh.com"
    parts = (kind, hashlib.sha256(b"imagegen").digest(), b"ssh:")
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return f"{kind.decode()} {base64.b64encode(blob).decode()} token"


def usable(trial: Trial) -> dict[str, str]:
    """What RunPod sets for a pod with SSH and Jupyter."""
    return {
        "PUBLIC_KEY": trial.public(),
        "JUPYTER_PASSWORD": trial.token,
        "RUNPOD_POD_ID": "x",
        "RUNPOD_TCP_PORT_22": "10022",
    }


# --- the pods that checks share; the slow ones first ----------------------------------------------


@SUITE.ahead
def full(trial: Trial) -> Pod:
    """Three keys with the line ends of two systems, a token, and values that are hard to carry."""
    keys = f"{trial.public()}\r\n{trial.public('rsa')}\r\n{trial.public('ecdsa')}"
    env = {**usable(trial), "PUBLIC_KEY": keys, "HF_TOKEN": f"hf_{trial.token}", **NASTY}
    return trial.pod("full", Start(env=env, ports=(SSH, JUPYTER)))


def _with_volume(trial: Trial, volume: Volume) -> Pod:
    return trial.pod(volume, Start(env=usable(trial), ports=(SSH, JUPYTER), volume=volume))


@SUITE.ahead
def with_empty_volume(trial: Trial) -> Pod:
    """With nothing at /workspace."""
    return _with_volume(trial, "empty")


@SUITE.ahead
def with_read_only_volume(trial: Trial) -> Pod:
    """With a /workspace that refuses writes."""
    return _with_volume(trial, "read-only")


@SUITE.ahead
def with_start_command(trial: Trial) -> Pod:
    """With a start command in CMD's place."""
    command = ("bash", "-c", "sleep infinity")
    start = Start(env=usable(trial), ports=(SSH, JUPYTER), command=command)
    return trial.pod("start command", start)


@SUITE.ahead
def with_json_start_command(trial: Trial) -> Pod:
    """With a start command in JSON in the place of both, that ends in what the image runs."""
    config = trial.config["Config"]
    own = shlex.join([*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())])
    script = f"sleep 1; exec {own}"
    start = Start(
        env=usable(trial), ports=(SSH, JUPYTER), entrypoint=("bash",), command=("-c", script)
    )
    return trial.pod("JSON start command", start)


@SUITE.ahead
def second(trial: Trial) -> Pod:
    """Another key beside one of a security key."""
    env = {"PUBLIC_KEY": f"{sk_key()}\n{trial.public()}\n"}
    return trial.pod("second", Start(env=env, ports=(SSH,)))


@SUITE.ahead
def bare(trial: Trial) -> Pod:
    """Without any variable."""
    return trial.pod("bare", Start())


@SUITE.ahead
def null(trial: Trial) -> Pod:
    """As RunPod starts a pod for an account without keys."""
    return trial.pod("null", Start(env={"PUBLIC_KEY": "null", "JUPYTER_PASSWORD": ""}))


# --- SSH ------------------------------------------------------------------------------------------


@SUITE.clause("host keys in a layer: every pod of every user has the same")
def R5_host_keys_are_each_pods_own(trial: Trial) -> str:
    script = "ls /etc/ssh/ssh_host_* 2>/dev/null | wc -l"
    count = trial.answer("-c", script, entrypoint=("sh",)).strip()
    same("host keys in the image", "0", count)
    one, other = full(trial).host_key(), second(trial).host_key()
    need(one != other, f"host keys of two pods: expected two, found one: {one}")
    return "none in the image, and two pods have different ones"


@SUITE.clause("keys that are cut, glued together or left out (axolotl's cloud-entrypoint.sh)")
def R6_ssh_works(trial: Trial) -> str:
    pod, other = full(trial), second(trial)
    seconds = pod.login()
    for kind in ("rsa", "ecdsa"):
        pod.login(kind)
    other.login()
    held = other.said("cat .ssh/authorized_keys")
    need(
        sk_key().split()[1] in held,
        f"authorized_keys: expected the key of a security key, found {held.split()[::2]}",
    )
    refused = other.ssh("true", key="rsa").err.strip()
    need(
        "Permission denied (publickey)." in refused,
        f"a key that was not given: expected 'Permission denied (publickey).', found {refused!r}",
    )
    words = "PreferredAuthentications=none"
    offered = pod.ssh("true", options=(words,)).err.strip()
    need("(publickey)" in offered, f"logins: expected publickey alone, found {offered!r}")
    for program in ("scp", "sftp"):
        pod.copy(program, trial.key("ecdsa"), f"/root/by-{program}")
        same(
            f"what {program} copied",
            trial.key("ecdsa").read_text(),
            pod.said("cat", f"by-{program}"),
        )
    return f"three kinds of keys, scp and sftp; the first login within {seconds:.1f} s"


@SUITE.clause("variables missing, cut or run over SSH (runpod/containers#70, PR #99)")
def R12_environment_reaches_ssh(trial: Trial) -> str:
    pod = full(trial)
    wanted = {**NASTY, "RUNPOD_POD_ID": "x", "RUNPOD_TCP_PORT_22": "10022"}
    nvcc = not pod.box.run("nvcc", "--version").code  # as in the container itself
    shells = ("env -0", "bash -lc 'env -0'", "bash -ic 'env -0' 2>/dev/null")
    for shell in shells:
        pairs = (pair.partition("=") for pair in pod.said(shell).split("\0"))
        found = {name: value for name, _, value in pairs}
        for name, value in wanted.items():
            same(f"{name} by `ssh pod {shell}`", value, found.get(name))
        need("IMAGEGEN_STRAY" not in found, f"`ssh pod {shell}`: part of a value is a variable")
        if nvcc:
            pod.said(shell.replace("env -0", "nvcc --version"))
    same("FOO by `ssh pod printenv FOO`", f"{NASTY['FOO']}\n", pod.said("printenv", "FOO"))
    ran = pod.ssh("test -e /tmp/imagegen-ran").code
    need(ran == 1, "a value of a variable: expected to be data, found it run as a command")
    with suppress(Failed):  # which is not about Jupyter; but what it writes at its start is there
        pod.get("/api/status")
    exposed = pod.said(EXPOSED, stdin=f"{trial.token}\nhf_{trial.token}\n").split()
    need(not exposed, f"JUPYTER_PASSWORD, HF_TOKEN: expected to be root's alone, found {exposed}")
    return f"{len(wanted)} values are exact in {len(shells)} kinds of shells; secrets are root's"


# --- Jupyter --------------------------------------------------------------------------------------


def kernel_works(trial: Trial, pod: Pod, origin: str = "") -> None:
    """Open Jupyter as a browser does and run code in a kernel."""
    browser = Browser(pod, trial.token, origin=origin)
    where = f" from {origin}" if origin else ""
    same(f"GET /api/status with a cookie{where}", 200, browser.get("/api/status"))
    same(f"what a kernel printed{where}", "42\n", browser.execute("print(6 * 7)"))


@SUITE.clause("a Jupyter that no proxy reaches or that refuses its address: a blank page")
def R9_jupyter_answers_through_a_proxy(trial: Trial) -> str:
    pod = full(trial)
    status = pod.get("/api/status", Authorization=f"token {trial.token}")
    seconds = pod.age()
    same("GET /api/status with the token", 200, status)
    same("GET /api/status?token=", 200, pod.get(f"/api/status?token={trial.token}"))
    same("GET /api/status without a token", 403, pod.get("/api/status"))
    wrong = pod.get("/api/status", Authorization="token wrong")
    same("GET /api/status with a wrong token", 403, wrong)
    kernel_works(trial, pod, PROXY)
    named = Browser(pod, trial.token, origin=PROXY, host=HOST)
    same(f"GET /api/status of {HOST}", 200, named.get("/api/status"))
    return f"a kernel works from {PROXY}; the first answer came within {seconds:.1f} s"


# --- volumes, versions, ports ---------------------------------------------------------------------


@SUITE.clause("an environment that the volume over /workspace hides (axolotl#813)", timeout=240)
def R11_a_volume_is_harmless(trial: Trial) -> str:
    wanted = full(trial).said("bash -lc 'python -'", stdin=MODULES)
    for name in ("torch", "flash_attn"):
        there = re.search(rf"^{name}", wanted, re.MULTILINE)
        need(there or not trial.promise.get(name), f"{name}: expected without a volume, found none")
    pods = {"empty": with_empty_volume(trial), "read-only": with_read_only_volume(trial)}
    for what, pod in pods.items():
        need(pod.box.state().running, f"with a volume that is {what}: the pod ended")
        pod.login()
        found = pod.said("bash -lc 'python -'", stdin=MODULES)
        same(f"modules with a volume that is {what}", wanted, found)
        kernel_works(trial, pod)
        need(pod.box.state().running, f"with a volume that is {what}: the pod ended")
    return f"SSH, Jupyter and {', '.join(wanted.splitlines())} with an empty and a read-only volume"


@SUITE.clause("ports that hide each other, and services that nobody asked for, open to the world")
def R16_ports_are_the_templates(trial: Trial) -> str:
    pod = full(trial)
    pod.login()
    same("GET /api/status without a token", 403, pod.get("/api/status"))
    found = pod.listening(loopback=False)
    same("ports that are reached from outside", [SSH, JUPYTER], sorted(found))
    return "22 and 8888 at once, and nothing else"


@SUITE.clause("a start command that leaves no sshd and no Jupyter (lium-io PR #1105, dstack#1133)")
def R20_start_commands_leave_a_usable_pod(trial: Trial) -> str:
    for pod, what in (
        (with_start_command(trial), "CMD"),
        (with_json_start_command(trial), "ENTRYPOINT and CMD"),
    ):
        done = pod.ssh("true")
        same(f"SSH with a start command for {what}", 0, done.code)
        status = pod.get("/api/status", Authorization=f"token {trial.token}")
        same(f"GET /api/status with a start command for {what}", 200, status)
    return "SSH and Jupyter with a start command for CMD, and with one for ENTRYPOINT and CMD"


@SUITE.clause(
    "a GPU that does not answer, or libraries that fail on it, found after paying for it",
    needs="gpu",
    timeout=600,
)
def R19_gpu_works_over_ssh(trial: Trial) -> str:
    with trial.started(Start(env=usable(trial), ports=(SSH,), gpus=True)) as pod:
        return works_on_its_gpu(trial, pod)


# --- without keys, over time, to the end ----------------------------------------------------------


def settled(trial: Trial) -> tuple[Pod, Pod]:
    """The pods without keys, when they have been up for long enough."""
    pods = bare(trial), null(trial)
    left = trial.settings.settle - min(pod.age() for pod in pods)
    time.sleep(max(0.0, left))
    return pods


@SUITE.clause("a pod that ends without its variables, and restarts for ever, billed (dstack#1142)")
def R3_stays_up_with_no_env(trial: Trial) -> str:
    for pod, what in zip(settled(trial), ("no variable", "PUBLIC_KEY=null"), strict=True):
        state = pod.box.state()
        need(state.running, f"with {what}: expected it to run, found {pod.box.logs(5)!r}")
        same(f"restarts with {what}", 0, state.restarts)
    return f"up for {bare(trial).age():.0f} s with no variable and with PUBLIC_KEY=null"


@SUITE.clause("an sshd that nobody can log in to, or anyone; the literal key null")
def R7_no_key_no_sshd(trial: Trial) -> str:
    for pod, what in zip(settled(trial), ("no variable", "PUBLIC_KEY=null"), strict=True):
        found = pod.listening()
        need(SSH not in found, f"port 22 with {what}: expected nothing, found a service")
    written = null(trial).box.run("cat", "/root/.ssh/authorized_keys").out.split()
    need(not written, f"authorized_keys with PUBLIC_KEY=null: expected no key, found {written}")
    return "nothing listens on 22, and null is no key"


@SUITE.clause("a Jupyter that anyone can open (runpod/containers PR #169, rapidsai/docker#537)")
def R10_no_open_jupyter(trial: Trial) -> str:
    for pod, what in zip(settled(trial), ("no variable", "JUPYTER_PASSWORD="), strict=True):
        found = sorted(pod.listening(loopback=False) - {SSH})
        need(not found, f"with {what}: expected nothing beside SSH, found a service on {found}")
    return "nothing listens without a token"


@SUITE.clause("keys that double and host keys that change (runpod/containers#45)", timeout=150)
def R8_restart_is_idempotent(trial: Trial) -> str:
    pod = full(trial)
    keys = "grep -v '^[[:space:]]*#' .ssh/authorized_keys | sort"
    before, held = pod.host_key(), pod.said(keys)
    for _ in range(2):
        pod.box.restart(STOP)
        pod.login()
    lines = pod.said(keys).splitlines()
    need(len(lines) == len(set(lines)), f"authorized_keys: expected each key once, found {lines}")
    same("authorized_keys", held.splitlines(), lines)
    same("the host key", before, pod.host_key())
    status = pod.get("/api/status", Authorization=f"token {trial.token}")
    same("GET /api/status with the token", 200, status)
    return f"after two restarts {len(lines)} keys, the same host key, SSH and Jupyter"


@SUITE.clause("a pod that is killed with its work unsaved, ten billed seconds later")
def R18_sigterm_ends_it(trial: Trial) -> str:
    took = []
    for pod in (full(trial), bare(trial)):
        need(pod.box.state().running, "expected a pod that runs, found one that has ended")
        seconds = pod.box.stop(STOP)
        code = pod.box.state().code
        need(
            seconds < STOP and code != 137,
            f"SIGTERM: expected an end within {STOP} s, found {code} after {seconds:.1f} s",
        )
        took.append(f"{seconds:.1f} s with status {code}")
    return f"ended after {' and '.join(took)}"
