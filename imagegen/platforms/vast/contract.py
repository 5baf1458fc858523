"""vast.ai's contract: pods under its launch script, which is simulated, and in args mode."""

from __future__ import annotations

import re
import time

from imagegen.checks.contract import Suite, Trial
from imagegen.checks.pod import SSH, Pod, Skip, need, same
from imagegen.checks.shared import works_on_its_gpu
from imagegen.platforms.vast.contract_image import IMAGE
from imagegen.platforms.vast.contract_pods import (
    DONE,
    LIMIT,
    PORT,
    RAN,
    SCRIPT,
    VALUES,
    in_jupyter_mode,
    in_ssh_mode,
    launched,
    offline,
    onstart,
    onstart_alone,
    through,
    with_nothing,
    with_runpod_names,
    with_vast_names,
)

SUITE = Suite("vast")
SUITE.update(IMAGE)

for pod in (
    in_ssh_mode,
    in_jupyter_mode,
    offline,
    onstart_alone,
    with_nothing,
    with_vast_names,
    with_runpod_names,
):
    SUITE.ahead(pod)

PROCESSES = """
for process in /proc/[0-9]*; do
    [[ $process == "/proc/$$" ]] && continue
    mapfile -d '' -t words <"$process/cmdline" && echo "${process##*/} ${words[*]}"
done 2>/dev/null
true"""
"""Without a process of its own that would be among them."""

SLOW = 270
"""Seconds for a check that begins with what the launch script installs."""

WHAT = ("processes", "ports", "files")
FILES = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /tmp -o -path /usr -o -path /var/log \
    -o -name '*-packages' \) -prune -o -type f -cnewer /.launch -print0 | sort -z | xargs -0r cksum
"""
"""Every file that is newer than the pod, with its checksum; logs may grow, and programs are left
out because they are many."""


# --- under /.launch -------------------------------------------------------------------------------


@SUITE.clause(
    "/.launch that cannot install sshd tries for ever, while the API says running",
    timeout=SLOW,
)
def V2_launch_gets_through(trial: Trial) -> str:
    """Without a network to the end of onstart; with one also to a login."""
    log = through(offline(trial))
    status = re.findall("launch: apt-get ended with status (.*)", log)
    same("exit status of apt-get without a network", ["0"], status)
    through(in_ssh_mode(trial))
    in_ssh_mode(trial).login()
    return "packages, sshd and onstart with and without a network; SSH answers"


@SUITE.clause(
    "in ssh and jupyter mode the ENTRYPOINT never runs: ai-dock/stable-diffusion-webui#21",
    timeout=SLOW,
)
def V3_no_entrypoint_and_root(trial: Trial) -> str:
    """The first process is the launch script, as root, at home in /root."""
    pod = in_ssh_mode(trial)
    through(pod)
    first = pod.box.run("cat", "/proc/1/cmdline").out
    same("process 1", "/bin/bash\0/.launch\0", first)
    who = re.findall("launch: user (.*), HOME (.*), listening", pod.box.logs(2000))
    same("user and HOME of /.launch", [("0", "/root")], who)
    same("user and HOME over SSH", "0\n/root\n", pod.said("id -u; echo ~"))
    return "process 1 is bash /.launch, as root in /root, and SSH answers"


@SUITE.clause(
    "the platform's sshd and Jupyter need ports 22 and 8080: ai-dock/base-image moves away",
    timeout=SLOW,
)
def V5_its_ports_are_left_to_it(trial: Trial) -> str:
    """Free before its services start, its own after onstart; in jupyter mode it answers there."""
    ssh, other = in_ssh_mode(trial), in_jupyter_mode(trial)
    for mode, pod in (("ssh", ssh), ("jupyter", other)):
        free = re.findall("launch: user .*, listening (.*)", through(pod))
        same(f"ports in use before /.launch starts something in {mode} mode", ["none"], free)
    _, ports = _settled(ssh)
    need(str(PORT) not in ports, f"port {PORT} in ssh mode: expected free, found in use")
    there = other.get(f"/launch/api/status?token={trial.token}", port=PORT)
    same("the platform's Jupyter, with its token", 200, there)
    same(
        "the platform's Jupyter, without its token", 403, other.get("/launch/api/status", port=PORT)
    )
    for mode, pod in (("ssh", ssh), ("jupyter", other)):
        ended = re.findall("launch: (?:sshd|jupyter) ended.*", pod.box.logs(2000))
        need(not ended, f"{mode} mode: expected its services to stay, found {ended}")
    return f"22 and {PORT} are the platform's; with the image's python3 its Jupyter answers"


@SUITE.clause("onstart runs at every boot, also without /workspace, and what it blocks never comes")
def V6_onstart_returns_and_repeats(trial: Trial) -> str:
    """The text that goes with the image: its size and paths, its return, and a second run."""
    text = onstart(trial)
    if not text:
        raise Skip("no onstart text is known for this image")
    need(len(text) <= 4096, f"characters: expected at most 4096, found {len(text)}")
    relative = re.findall(r"(?m)(?<![\w./~$}{*-])(?:\.{1,2}|~|[\w-]+)/\S*", re.sub("#.*", "", text))
    need(not relative, f"paths: expected absolute ones, found {relative}")
    pod = onstart_alone(trial)
    pod.until(lambda: DONE in pod.box.logs(2000), "the end of onstart")
    status = re.findall(f"{DONE}(.*)", pod.box.logs(2000))
    need("124" not in status, f"onstart: expected it to return, found it running after {LIMIT} s")
    same("exit status of onstart", ["0"], status)
    before = _state(pod)
    begun = time.monotonic()
    same("exit status of a second run", 0, pod.box.run("bash", SCRIPT).code)
    seconds = time.monotonic() - begun
    for what, old, new in zip(WHAT, before, _state(pod), strict=True):
        gone, come = sorted(old - new), sorted(new - old)
        need(old == new, f"{what} after a second run: expected the same, gone {gone}, new {come}")
    return f"{len(text)} characters; a second run is back in {seconds:.1f} s and changes nothing"


def _settled(pod: Pod) -> tuple[set[str], set[str]]:
    """Processes and ports, once nothing is about to change."""
    seen: list[tuple[set[str], set[str]]] = [(set(), set())]

    def quiet() -> bool:
        processes = set(pod.box.run("bash", "-c", PROCESSES).out.splitlines())
        ports = set(map(str, pod.listening()))
        seen.append((processes, ports))
        starting = any("jupyter" in process for process in processes) and ports <= {str(SSH)}
        return seen[-1] == seen[-2] and not starting

    pod.until(quiet, "processes and ports that stay")
    return seen[-1]


def _state(pod: Pod) -> tuple[set[str], ...]:
    """``WHAT`` there is in it."""
    return *_settled(pod), set(pod.box.run("bash", "-c", FILES).out.splitlines())


@SUITE.clause(
    "`env >> /etc/environment`, vast.ai's own advice, cuts a value at its first line end",
    timeout=SLOW,
)
def V7_the_environment_arrives(trial: Trial) -> str:
    """Exact values over SSH, under the platform's own sshd; a second start repeats none."""
    pod = in_ssh_mode(trial)
    through(pod)
    for command in ("env -0", "bash -lc 'env -0'"):
        pairs = (pair.partition("=") for pair in pod.said(command).split("\0") if pair)
        found = {name: value for name, _, value in pairs}
        for name, value in VALUES.items():
            same(f"{name} in `ssh pod {command}`", value, found.get(name))
        need("IMAGEGEN_STRAY" not in found, f"`ssh pod {command}`: a line became a variable")
    same("`ssh pod printenv A`", f"{VALUES['A']}\n", pod.said("printenv A"))
    need(pod.box.run("test", "-e", RAN).code, "a value of the environment was run")
    which = "command -v nvcc python python3"
    own = pod.box.run("bash", "-c", which).out
    need("/nvcc\n" in own, f"nvcc on the image's PATH: expected, found {own.split()}")
    same(f"`ssh pod {which}`", own, pod.said(which))
    pod.said("nvcc --version")
    pod.box.restart(grace=5)
    through(pod, 2)
    text = pod.box.run("cat", "/etc/environment").out
    names = re.findall(r"(?m)^\s*(?:export\s+)?(\w+)=", text)
    twice = sorted({name for name in names if names.count(name) > 1})
    need(not twice, f"/etc/environment after two starts: expected each once, found {twice}")
    return f"{len(VALUES)} values, nvcc and python as the image has them"


# --- in args mode ---------------------------------------------------------------------------------


@SUITE.clause(
    "in args mode the platform starts no sshd: an image without its own cannot be reached"
)
def V8_args_mode_has_its_own_ssh(trial: Trial) -> str:
    """SSH with SSH_PUBLIC_KEY, and a command that goes through the ENTRYPOINT."""
    with_vast_names(trial).login()
    out = trial.answer("bash", "-c", "echo OK")
    same("last line of `docker run IMAGE bash -c 'echo OK'`", ["OK"], out.splitlines()[-1:])
    return "SSH answers with SSH_PUBLIC_KEY; a command takes CMD's place"


@SUITE.clause("EXPOSE lines are mapped by themselves, at most 64 ports; 8080 cannot be had")
def V11_what_it_exposes_is_meant(trial: Trial) -> str:
    """Each exposed port is one on which the image answers when it has a key and a token."""
    exposed = sorted(trial.config["Config"].get("ExposedPorts") or {})
    need(
        len(exposed) <= 62, f"exposed: expected 62 ports beside a template's, found {len(exposed)}"
    )
    ports = {int(port.partition("/")[0].partition("-")[0]) for port in exposed}
    need(PORT not in ports, f"exposed: expected {PORT} to be left to the platform, found it")
    pod = with_vast_names(trial)
    pod.until(lambda: ports <= pod.listening(), f"something behind each of {', '.join(exposed)}")
    return f"exposed and answered: {', '.join(exposed) or 'nothing'}"


@SUITE.clause(
    "vast.ai's own tmux at login; one that .bashrc starts as well nests in it, or fails",
    timeout=SLOW,
)
def V14_tmux_is_the_platforms(trial: Trial) -> str:
    """A tmux starts, and a login over SSH with a terminal does not land in one."""
    pod = in_ssh_mode(trial)
    through(pod)
    done = pod.box.run("tmux", "new", "-d", env={"TERM": "xterm-256color"}, tty=True)
    need(done.code == 0, f"`tmux new -d`: expected 0, found {done.code}: {done.out.strip()}")
    ask = "printf 'in:%s.\\n' \"${TMUX:-none}\"\nexit\n"
    out = pod.ssh(options=("RequestTTY=force",), stdin=ask).out
    found = re.findall(r"in:([^%\s]*)\.", out)
    same("TMUX in a terminal over SSH", ["none"], found)
    return "tmux starts; a login is not in one before the platform says so"


@SUITE.clause(
    "a GPU that only `docker exec` sees, or that only our own start makes usable",
    needs="gpu",
    timeout=700,
)
def V19_the_gpu_works_over_ssh(trial: Trial) -> str:
    """Under the launch script, which starts its own sshd."""
    pod = launched(trial, "gpu", gpus=True)
    through(pod)
    return works_on_its_gpu(trial, pod)


# --- what waits, and what restarts ----------------------------------------------------------------


@SUITE.clause(
    "an image that knows one platform's names, or opens Jupyter to all: rapidsai/docker#537"
)
def V9_both_platforms_names_work(trial: Trial) -> str:
    """Either set of variables opens the same; without them nothing listens."""
    opened = []
    for pod in (with_vast_names(trial), with_runpod_names(trial)):
        pod.login()
        same("Jupyter, with the token", 200, pod.get(f"/api/status?token={trial.token}"))
        same("Jupyter, without the token", 403, pod.get("/api/status"))
        opened.append(sorted(pod.listening(loopback=False)))
    same("ports with RunPod's names, and with vast.ai's", opened[0], opened[1])
    closed = with_nothing(trial)
    time.sleep(max(0.0, trial.settings.settle - closed.age()))
    same("running without keys and tokens", True, closed.box.state().running)
    same("ports without keys and tokens", set(), closed.listening())
    return f"either set opens {opened[0]}; without, after {closed.age():.0f} s, nothing listens"


@SUITE.clause(
    "what runs at every start appends, or finds its own lock: runpod/containers#45",
    timeout=SLOW,
)
def V15_it_survives_restarts(trial: Trial) -> str:
    """Two restarts of an instance: the launch script, SSH and onstart again."""
    pod = in_ssh_mode(trial)
    starts = through(pod).count(DONE)
    for again in (1, 2):
        pod.box.restart(grace=5)
        through(pod, starts + again)
        pod.login()
    return f"SSH and onstart are back after each of {again} restarts"
