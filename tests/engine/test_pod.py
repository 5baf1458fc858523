"""The start script in a small image without torch: real sshd, real Jupyter, real cron and tmux."""

from __future__ import annotations

import io
import json
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from imagegen.engine.docker import Docker

NASTY = {
    "quotes": "a \"b\" 'c' \\ \\n",
    "HF_TOKEN": "$(touch /pwned)`touch /pwned`${HOME};touch /pwned",
    "IMAGEGEN_PROBE": "x=1\nPATH=/nowhere\n\n'\"$(touch /pwned)\n é 漢 \t",
    "EMPTY": "",
    "SSH_PUBLIC_KEY_NOTE": "a=b=c",
    "LD_LIBRARY_PATH": "/opt/a:/opt/b",
    "lower_case": "1",
    # Names that the start script could have used for itself.
    **dict.fromkeys(("line", "file", "key", "name", "log", "token", "root"), "mine"),
}


def eventually(probe: Callable[[], bool], what: str, patience: float = 30) -> None:
    """Wait until the probe holds."""
    end = time.monotonic() + patience
    while not probe():
        assert time.monotonic() < end, f"not within {patience:g} s: {what}"
        time.sleep(0.1)


@dataclass(frozen=True)
class Box:
    """A running container."""

    container: Any

    def run(self, *argv: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        """The exit status and the standard output of a command in the container."""
        done = self.container.exec_run(list(argv), demux=True, environment=env)
        return done.exit_code, (done.output[0] or b"").decode()

    def said(self) -> str:
        return str(self.container.logs().decode())

    def listens(self, port: int) -> bool:
        return f":{port} " in self.run("ss", "-ltn")[1]

    def ready(self) -> bool:
        return "This pod has" in self.said()


@pytest.fixture(scope="session")
def client(engine: Docker) -> Iterator[Any]:
    """docker-py itself: these tests look into containers as imagegen never does."""
    made = docker.from_env()
    yield made
    made.close()


@pytest.fixture(scope="session")
def network(client: Any) -> Iterator[str]:
    made = client.networks.create(f"imagegen-test-{uuid.uuid4().hex[:12]}")
    yield made.name
    made.remove()


@pytest.fixture(scope="session")
def user(client: Any, small_image: str, network: str) -> Iterator[Box]:
    """A second machine, with a key of each kind, from which the pod is used."""
    container = client.containers.run(
        small_image, ["sleep", "infinity"], detach=True, network=network
    )
    try:
        box = Box(container)
        for kind in ("ed25519", "ecdsa", "rsa"):
            assert box.run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", f"/{kind}") == (0, "")
        yield box
    finally:
        container.remove(force=True, v=True)


@pytest.fixture
def pod(client: Any, small_image: str, network: str) -> Iterator[Callable[..., Box]]:
    """Starts pods: `pod({"PUBLIC_KEY": ...}, files={"/pre_start.sh": ...}, command=[...])`."""
    made = []

    def start(
        env: dict[str, str] | None = None,
        *,
        files: dict[str, str] | None = None,
        command: list[str] | None = None,
        wait: bool = True,
        **more: Any,
    ) -> Box:
        container = client.containers.create(
            small_image, command, environment=env or {}, network=network, mem_limit="2g", **more
        )
        made.append(container)
        for path, text in (files or {}).items():
            container.put_archive("/", archive(path, text))
        container.start()
        box = Box(container)
        if wait:
            eventually(box.ready, "the pod's own sentence")
        return box

    yield start
    for container in made:
        container.remove(force=True, v=True)


def archive(path: str, text: str) -> bytes:
    out, data = io.BytesIO(), text.encode()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.size, entry.mode = len(data), 0o644
        tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def public(user: Box, kind: str) -> str:
    return user.run("cat", f"/{kind}.pub")[1].strip()


def ssh(user: Box, pod: Box, command: str, key: str = "ed25519") -> tuple[int, str]:
    options = (
        "BatchMode=yes IdentitiesOnly=yes StrictHostKeyChecking=no UserKnownHostsFile=/dev/null"
    )
    argv = ["ssh", "-F", "/dev/null", "-i", f"/{key}", "-o", "ConnectionAttempts=20"]
    argv += [word for option in options.split() for word in ("-o", option)]
    return user.run(*argv, f"root@{pod.container.id[:12]}", command)


def host_key(user: Box, pod: Box) -> str:
    found = ""

    def scan() -> bool:
        nonlocal found
        found = user.run("ssh-keyscan", "-t", "ed25519", pod.container.id[:12])[1]
        return "ssh-ed25519" in found

    eventually(scan, "sshd's host key")
    return found


def authorized(pod: Box) -> list[str]:
    return pod.run("cat", "/root/.ssh/authorized_keys")[1].splitlines()


# --- The image ------------------------------------------------------------------------------


def smoke(box: Box, *names: str) -> tuple[int, dict[str, str]]:
    only = [word for name in names for word in ("--only", name)]
    code, out = box.run("/opt/venv/bin/python", "/opt/imagegen/smoke.py", *only)
    return code, {line["name"]: line["status"] for line in map(json.loads, out.splitlines())}


def test_a_clean_image_passes_and_a_key_or_a_certificate_in_it_fails(
    pod: Callable[..., Box],
) -> None:
    box = pod(command=["sleep", "600"], wait=False)
    names = ("os_release", "interpreter", "nvcc", "pip_check", "nothing_private")
    assert smoke(box, *names) == (0, dict.fromkeys(names, "pass"))
    ca = "/usr/local/share/ca-certificates/company.crt"
    for path in ("/etc/ssh/ssh_host_ed25519_key", "/root/.ssh/authorized_keys", ca):
        box.run("bash", "-c", f"mkdir -p $(dirname {path}); touch {path}")
        assert smoke(box, "nothing_private") == (1, {"nothing_private": "fail"}), path
        box.run("rm", path)
    for bundle in ("/etc/ssl/certs/ca-certificates.crt", "$(python -m certifi)"):
        box.run("bash", "-c", f"cp {bundle} /kept; echo '-----BEGIN CERTIFICATE-----' >> {bundle}")
        assert smoke(box, "nothing_private") == (1, {"nothing_private": "fail"}), bundle
        box.run("bash", "-c", f"cp /kept {bundle}")
    assert smoke(box, "nothing_private") == (0, {"nothing_private": "pass"})


# --- SSH ------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", [{}, {"PUBLIC_KEY": "null", "JUPYTER_PASSWORD": ""}])
def test_without_keys_and_token_nothing_listens(
    env: dict[str, str], pod: Callable[..., Box]
) -> None:
    box = pod(env)
    listening = box.run("ss", "-Hltn")[1].splitlines()
    assert [line for line in listening if "127.0.0.11:" not in line] == []  # the engine's own DNS
    assert authorized(box) == []
    why = "SSH is off, because PUBLIC_KEY and SSH_PUBLIC_KEY hold no key; Jupyter is off, because"
    eventually(lambda: why in box.said(), "a sentence that says why")


def test_keys_that_are_mounted_read_only_are_the_pod_s(
    user: Box, pod: Callable[..., Box], tmp_path: Path
) -> None:
    (tmp_path / "authorized_keys").write_text(public(user, "ed25519") + "\n")
    (tmp_path / "authorized_keys").chmod(0o600)
    tmp_path.chmod(0o700)
    volumes = {str(tmp_path): {"bind": "/root/.ssh", "mode": "ro"}}
    box = pod({"PUBLIC_KEY": public(user, "rsa")}, volumes=volumes)
    assert "authorized_keys cannot be written, so it stays as it is" in box.said()
    assert ssh(user, box, "true") == (0, "")
    eventually(lambda: "SSH is on port 22, with the keys of" in box.said(), "where it is")


def test_a_line_that_is_no_key_is_left_out_with_a_sentence(
    user: Box, pod: Callable[..., Box]
) -> None:
    box = pod({"PUBLIC_KEY": f"ssh-ed25519 AAAAnonsense\nhello\n{public(user, 'rsa')}"})
    assert box.said().count("is not a public key") == 2
    assert authorized(box) == [public(user, "rsa")]
    assert ssh(user, box, "true", key="rsa") == (0, "")


def test_keys_of_both_platforms_are_added_once_beside_what_is_there(
    user: Box, pod: Callable[..., Box]
) -> None:
    first, second, there = (public(user, kind) for kind in ("ed25519", "ecdsa", "rsa"))
    kept = f"# mine\nno-pty {there}"  # no line end, as editors leave it
    box = pod(
        {"PUBLIC_KEY": f"{first}\r\n{second}\r\n", "SSH_PUBLIC_KEY": f"{first} again\n{there}"},
        files={"/root/.ssh/authorized_keys": kept},
    )
    before = host_key(user, box)
    for _ in range(2):
        assert authorized(box) == [*kept.splitlines(), first, second]
        assert box.run(
            "stat", "-c", "%a", "/root/.ssh", "/root/.ssh/authorized_keys", "/run/sshd"
        ) == (
            0,
            "700\n600\n755\n",
        )
        for key in ("ed25519", "ecdsa", "rsa"):
            assert ssh(user, box, "true", key=key) == (0, "")
        box.container.restart(timeout=5)
        assert host_key(user, box) == before


def test_two_pods_have_different_host_keys(user: Box, pod: Callable[..., Box]) -> None:
    one, other = (pod({"PUBLIC_KEY": public(user, "ed25519")}) for _ in range(2))
    assert host_key(user, one).split()[1:] != host_key(user, other).split()[1:]


# --- Environment ----------------------------------------------------------------------------

SHELLS = (
    *("{}", "bash -lc '{}'", "bash -ic '{}' 2>/dev/null", "bash -c 'bash -lc \"{}\"'"),
    *("sh -c '{}'", "sh -lc '{}'"),
)


PLATFORM = """\
mkdir -p /root/.ssh; echo "$PUBLIC_KEY" > /root/.ssh/authorized_keys; ssh-keygen -A
mkdir -p /run/sshd; /usr/sbin/sshd {options}; exec sleep 600
"""


@pytest.fixture(params=["our start", "a platform's own sshd", "a platform's own sshd without PAM"])
def reachable(request: pytest.FixtureRequest, user: Box, pod: Callable[..., Box]) -> Box:
    """A pod with NASTY in its environment, also where vast.ai runs its script in place of ours."""
    env = {"PUBLIC_KEY": public(user, "ed25519"), **NASTY}
    if request.param == "our start":
        # As Ubuntu ships it: what comes after this line is read by interactive shells only.
        line = "[ -r /opt/imagegen/environment.sh ] && . /opt/imagegen/environment.sh"
        return pod(env, files={"/root/.bashrc": f'{line}\n[ -z "$PS1" ] && return\n'})
    script = PLATFORM.format(options="-o UsePAM=no" if "PAM" in request.param else "")
    return pod(env, entrypoint=["bash", "-c", script], wait=False)


def test_every_shell_over_ssh_has_the_container_s_environment(user: Box, reachable: Box) -> None:
    # Without PAM it is bash that brings the environment; another shell gets it from there.
    for shell in SHELLS:
        code, said = ssh(user, reachable, shell.format("env -0"))
        found = dict(pair.split("=", 1) for pair in said.split("\0") if pair)
        assert (code, {name: found.get(name) for name in NASTY}) == (0, NASTY), shell
        look = shell.format("command -v python3; command -v nvcc; printenv CUDA_HOME")
        wanted = "/opt/venv/bin/python3\n/usr/local/cuda/bin/nvcc\n/usr/local/cuda\n"
        assert ssh(user, reachable, look) == (0, wanted), shell
    assert reachable.run("ls", "/pwned")[0] != 0


def test_a_session_keeps_what_the_user_changed(user: Box, pod: Callable[..., Box]) -> None:
    box = pod({"PUBLIC_KEY": public(user, "ed25519"), "HF_TOKEN": "old", "GONE": "x"})
    change = "export HF_TOKEN=new PATH=/mine:$PATH; unset GONE"
    look = "bash -ic 'echo $HF_TOKEN ${PATH%%:*} $GONE' 2>/dev/null"
    assert ssh(user, box, f"{change}; {look}") == (0, "new /mine\n")
    # Without SSH a shell has its variables already; only /etc/profile's PATH is mended.
    login = ("bash", "-lc", "echo $HF_TOKEN; command -v nvcc")
    assert box.run(*login, env={"HF_TOKEN": "mine"}) == (0, "mine\n/usr/local/cuda/bin/nvcc\n")


def test_secrets_are_in_no_file(user: Box, pod: Callable[..., Box]) -> None:
    secret = "s3cret-of-this-test"
    box = pod({"PUBLIC_KEY": public(user, "ed25519"), "JUPYTER_PASSWORD": secret, "A": secret})
    eventually(lambda: box.listens(8888), "Jupyter")
    assert ssh(user, box, "printenv A") == (0, f"{secret}\n")
    assert secret not in box.run("ps", "-eo", "args")[1]
    found = box.run("grep", "-rl", secret, "/etc", "/home", "/opt", "/root", "/run", "/tmp", "/var")
    # Jupyter's own notes for `jupyter server list`
    runtime = "/root/.local/share/jupyter/runtime"
    assert [file for file in found[1].split() if not file.startswith(f"{runtime}/")] == []
    assert box.run("stat", "-c", "%U %a", "/root", runtime)[1] == "root 700\nroot 700\n"


def test_cron_has_the_container_s_environment(user: Box, pod: Callable[..., Box]) -> None:
    box = pod({"PUBLIC_KEY": public(user, "ed25519"), **NASTY})
    what = "env -0 >/tmp/cron; command -v python3 nvcc >/tmp/which"
    # As every minute's job is, without the minute: cron does these when it starts.
    ssh(user, box, f"(crontab -l; echo '@reboot {what}') | crontab - && service cron start")
    eventually(lambda: box.run("test", "-s", "/tmp/which")[0] == 0, "cron's first job")
    found = dict(pair.split("=", 1) for pair in box.run("cat", "/tmp/cron")[1].split("\0") if pair)
    assert {name: found.get(name) for name in NASTY} == NASTY
    assert box.run("cat", "/tmp/which")[1] == "/opt/venv/bin/python3\n/usr/local/cuda/bin/nvcc\n"


def test_tmux_has_the_container_s_environment(user: Box, pod: Callable[..., Box]) -> None:
    box = pod({"PUBLIC_KEY": public(user, "ed25519"), **NASTY})
    ssh(user, box, "tmux new -d; tmux send-keys 'env -0 >/tmp/a; command -v nvcc >/tmp/b' Enter")
    eventually(lambda: box.run("test", "-s", "/tmp/b")[0] == 0, "the window's command")
    found = dict(pair.split("=", 1) for pair in box.run("cat", "/tmp/a")[1].split("\0") if pair)
    assert {name: found.get(name) for name in NASTY} == NASTY
    assert box.run("cat", "/tmp/b")[1] == "/usr/local/cuda/bin/nvcc\n"


def test_vs_code_s_way_in(user: Box, pod: Callable[..., Box]) -> None:
    """It pipes a script into a shell without a terminal, and comes back through a forward."""
    box = pod({"PUBLIC_KEY": public(user, "ed25519"), **NASTY})
    name = box.container.id[:12]
    script = (
        "echo 'printenv HF_TOKEN; command -v nvcc python3' | ssh -T -F /dev/null -i /ed25519 "
        "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "
        f"-D 127.0.0.1:1080 root@{name} bash"
    )
    eventually(lambda: box.listens(22), "sshd")
    wanted = f"{NASTY['HF_TOKEN']}\n/usr/local/cuda/bin/nvcc\n/opt/venv/bin/python3\n"
    assert user.run("bash", "-c", script) == (0, wanted)
    for program in ("tar", "wget", "curl"):  # what its server is fetched and unpacked with
        assert ssh(user, box, f"command -v {program}")[0] == 0


def test_a_login_shows_what_is_here_and_a_command_does_not(
    user: Box, pod: Callable[..., Box]
) -> None:
    box = pod({"PUBLIC_KEY": public(user, "ed25519")})
    assert ssh(user, box, "true") == (0, "")
    options = "-F /dev/null -i /ed25519 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    login = f"echo exit | ssh -tt {options} root@{box.container.id[:12]}"
    assert user.run("bash", "-c", login)[1].count("This pod has no GPU, ") == 1


# --- Volumes --------------------------------------------------------------------------------


@pytest.fixture
def volume(client: Any) -> Iterator[str]:
    made = client.volumes.create(f"imagegen-test-{uuid.uuid4().hex[:12]}")
    yield made.name
    made.remove(force=True)


def mounted(name: str) -> dict[str, Any]:
    return {"volumes": {name: {"bind": "/workspace", "mode": "rw"}}}


def test_host_keys_can_be_kept_on_the_volume(
    volume: str, user: Box, pod: Callable[..., Box]
) -> None:
    env = {"PUBLIC_KEY": public(user, "ed25519"), "SSH_HOST_KEYS_DIR": "/workspace/.ssh-host"}
    one, other = pod(env, **mounted(volume)), pod(env, **mounted(volume))
    assert host_key(user, one).split()[1:] == host_key(user, other).split()[1:]
    for name in ("ed25519", "ecdsa"):
        file = f"/workspace/.ssh-host/ssh_host_{name}_key"
        assert one.run("stat", "-c", "%a", file)[1] == "600\n"
    # A key that was kept badly is none: the pod makes one of its own, and keeps that.
    one.run("bash", "-c", "for key in /workspace/.ssh-host/*; do : >$key; done")
    third = pod(env, **mounted(volume))
    assert ssh(user, third, "true") == (0, "")
    assert third.run("test", "-s", "/workspace/.ssh-host/ssh_host_ed25519_key")[0] == 0


def test_caches_go_to_the_volume_where_there_is_one(volume: str, pod: Callable[..., Box]) -> None:
    box = pod(**mounted(volume))
    for name in ("huggingface", "pip", "uv", "torch"):
        wanted = f"/workspace/.cache/{name}\n"
        assert box.run("readlink", "-f", f"/root/.cache/{name}") == (0, wanted)
    box.run("touch", "/root/.cache/huggingface/model")
    box.container.restart(timeout=5)
    assert pod(**mounted(volume)).run("ls", "/root/.cache/huggingface") == (0, "model\n")
    assert pod().run("test", "-e", "/root/.cache/huggingface")[0] == 1
    held = {volume: {"bind": "/workspace", "mode": "ro"}}
    assert pod(volumes=held).run("touch", "/root/.cache/it-is-written")[0] == 0
    assert pod(volumes=held).run("test", "-L", "/root/.cache/huggingface")[0] == 1


# --- Life and death -------------------------------------------------------------------------


def test_sigterm_ends_the_pod_at_once(user: Box, pod: Callable[..., Box]) -> None:
    box = pod({"PUBLIC_KEY": public(user, "ed25519"), "JUPYTER_PASSWORD": "t0ken"})
    eventually(lambda: box.listens(8888) and box.listens(22), "Jupyter and sshd")
    start = time.monotonic()
    box.container.stop(timeout=10)
    assert time.monotonic() - start < 2
    assert box.container.wait()["StatusCode"] == 143


def test_sigterm_ends_a_pod_whose_hook_hangs(pod: Callable[..., Box]) -> None:
    box = pod(files={"/pre_start.sh": "echo hook; sleep 600"}, wait=False)
    eventually(lambda: "hook" in box.said(), "the hook's line")
    start = time.monotonic()
    box.container.stop(timeout=10)
    assert time.monotonic() - start < 2


def test_hooks_run_and_one_that_fails_does_not_end_the_pod(
    user: Box, pod: Callable[..., Box]
) -> None:
    files = {"/pre_start.sh": "exit 3", "/post_start.sh": "ss -ltn | grep -q :22 && touch /after"}
    box = pod({"PUBLIC_KEY": public(user, "ed25519")}, files=files)
    assert "/pre_start.sh ended with status 3" in box.said()
    assert ssh(user, box, "true") == (0, "")


def test_a_service_that_fails_does_not_end_the_pod(user: Box, pod: Callable[..., Box]) -> None:
    env = {"PUBLIC_KEY": public(user, "ed25519"), "JUPYTER_PASSWORD": "t0ken"}
    files = {"/pre_start.sh": "rm /opt/venv/bin/jupyter; echo Nonsense >> /etc/ssh/sshd_config"}
    box = pod(env, files=files)
    eventually(
        lambda: "Jupyter ended with status 127; the pod goes on (/var/log" in box.said(),
        "a sentence",
    )
    assert "SSH did not start" in box.said()
    box.container.reload()
    assert box.container.status == "running"


def test_arguments_are_the_pod_s_main_process(user: Box, pod: Callable[..., Box]) -> None:
    env = {"PUBLIC_KEY": public(user, "ed25519")}
    script = "printenv file name log line; sleep 3; exit 7"
    box = pod(env | NASTY, command=["bash", "-c", script])
    assert ssh(user, box, "true") == (0, "")
    assert box.container.wait(timeout=20)["StatusCode"] == 7
    assert "mine\nmine\nmine\nmine\n" in box.said()


def test_a_main_process_gets_sigterm_and_time(pod: Callable[..., Box]) -> None:
    save = "trap 'sleep 1; echo saved; exit 5' TERM; echo trapped; while :; do sleep 0.1; done"
    box = pod(command=["bash", "-c", save])
    eventually(lambda: "trapped" in box.said(), "the trap")
    box.container.stop(timeout=10)
    assert "saved" in box.said()
    assert box.container.wait()["StatusCode"] == 5


def test_orphans_are_reaped(pod: Callable[..., Box]) -> None:
    box = pod()
    box.run("bash", "-c", "(sleep 0.1 &) ; (sleep 0.1 &)")
    eventually(lambda: "<defunct>" not in box.run("ps", "-eo", "args")[1], "none is left", 5)
    assert "sleep 0.1" not in box.run("ps", "-eo", "args")[1]


def test_ctrl_c_is_for_the_command_alone(user: Box, pod: Callable[..., Box]) -> None:
    """In a terminal it reaches the foreground; services are not part of it, nor deaf to it."""
    env = {"PUBLIC_KEY": public(user, "ed25519"), "JUPYTER_PASSWORD": "t0ken"}
    trap = "trap 'echo caught' INT; echo ready; while :; do sleep 0.1; done"
    box = pod(env, command=["bash", "-c", trap], tty=True, stdin_open=True)
    eventually(lambda: box.listens(8888) and box.listens(22), "Jupyter and sshd")
    terminal = box.container.attach_socket(params={"stdin": 1, "stream": 1})
    try:
        terminal._sock.send(b"\x03")
        eventually(lambda: "caught" in box.said(), "SIGINT")
    finally:
        terminal.close()
    assert box.listens(8888)
    assert box.listens(22)
    ignored = box.run("bash", "-c", "grep -h SigIgn $(printf '/proc/%s/status ' $(pgrep jupyter))")
    assert ignored[1], "no Jupyter"
    assert not any(int(line.split()[1], 16) & 0b10 for line in ignored[1].splitlines())


def test_start_without_a_command_returns_and_a_second_run_changes_nothing(
    user: Box, pod: Callable[..., Box]
) -> None:
    env = {"PUBLIC_KEY": public(user, "ed25519"), "JUPYTER_PASSWORD": "t0ken"}
    box = pod(env, entrypoint=["sleep"], command=["600"], wait=False)
    assert not box.listens(22)
    run = "imagegen-start </dev/null & imagegen-start </dev/null & wait -n && wait"
    both = box.run("bash", "-c", run)
    assert both == (0, "")
    assert "did not start" not in box.said()
    for patience in (False, True, True):  # the second while the first one's Jupyter starts
        assert box.run("imagegen-start") == (0, "")
        if patience:
            eventually(lambda: box.listens(8888) and box.listens(22), "Jupyter and sshd")
    assert authorized(box) == [public(user, "ed25519")]
    assert len(box.run("pgrep", "-f", "sshd -D")[1].split()) == 1
    assert len(box.run("pgrep", "-f", "bin/jupyter-lab")[1].split()) == 1
    assert ssh(user, box, "true") == (0, "")


def test_standard_output_is_the_command_s(client: Any, small_image: str) -> None:
    said = client.containers.run(small_image, ["echo", "mine"], remove=True, stderr=False)
    assert said == b"mine\n"


def test_jupyter_s_port_can_be_chosen(pod: Callable[..., Box]) -> None:
    box = pod({"JUPYTER_TOKEN": "t0ken", "JUPYTER_PORT": "8080"})
    eventually(lambda: box.listens(8080), "Jupyter")
    assert not box.listens(8888)
    kubernetes = pod({"JUPYTER_TOKEN": "t0ken", "JUPYTER_PORT": "tcp://10.0.0.1:80"})
    eventually(lambda: kubernetes.listens(8888), "Jupyter")


# --- What it says ---------------------------------------------------------------------------

FLASH_ATTN = "flash-attn 2.8.3.post2 (head dimensions 128 in bf16, for sm_80)"


def test_the_pod_says_what_it_has(pod: Callable[..., Box]) -> None:
    wanted = f"This pod has no GPU, CUDA 13.0.2, torch 2.11.0, {FLASH_ATTN} and Python 3.11."
    box = pod()
    assert wanted in box.said()
    assert wanted in box.run("cat", "/etc/motd")[1]


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("NVIDIA A100-SXM4-80GB, 580.95.05, 8.0", []),
        (
            "NVIDIA H200, 580.95.05, 9.0",
            ["flash-attn has no kernels for its compute capability 9.0; attention without it"],
        ),
        (
            "Tesla V100-SXM2-16GB, 580.95.05, 7.0",
            [
                "torch has no kernels for its compute capability 7.0: on your own machine,",
                "flash-attn has no kernels for its compute capability 7.0",
            ],
        ),
    ],
)
def test_the_pod_says_what_its_gpu_lacks_and_what_to_do(
    card: str, said: list[str], pod: Callable[..., Box]
) -> None:
    tool = f"printf '#!/bin/sh\\necho {card}\\n' > /usr/local/bin/nvidia-smi"
    box = pod(files={"/pre_start.sh": f"{tool}; chmod +x /usr/local/bin/nvidia-smi"})
    name, driver, _ = card.split(", ")
    assert f"This pod has 1 x {name} (driver {driver}), CUDA 13.0.2, torch 2.11.0, " in box.said()
    assert box.said().count("no kernels") == len(said)
    for words in said:
        assert words in box.said()
