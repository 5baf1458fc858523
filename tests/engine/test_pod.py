"""The start script and peer.py in a small image without torch: real sshd, real Jupyter."""

from __future__ import annotations

import io
import json
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import docker
import pytest

from imagegen import bake, plan
from imagegen.base import Base
from imagegen.engine import Docker

from .conftest import NETWORK

DOCKERFILE = """\
FROM {base}
RUN --mount=type=bind,from=image,source=build,target=/build --mount=type=secret,id=ca,mode=0444 \\
    /build/with-network /build/apt-install openssh-server openssh-client openssh-sftp-server \\
    python3 python3-venv procps iproute2 curl
RUN --mount=type=bind,from=image,source=build,target=/build --mount=type=secret,id=ca,mode=0444 \\
    python3 -m venv /opt/venv \\
 && /build/with-network /opt/venv/bin/pip install -q --no-compile jupyterlab
COPY nvcc /usr/local/cuda/bin/
COPY target.json /etc/imagegen/
COPY --from=image pod/ /opt/imagegen/
RUN ln -s /opt/imagegen/environment.sh /etc/profile.d/imagegen.sh \\
 && sed -i '1i [ -r /opt/imagegen/environment.sh ] && . /opt/imagegen/environment.sh' /root/.bashrc
ENV CUDA_HOME=/usr/local/cuda
ENV PATH=/opt/venv/bin:/usr/local/cuda/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["/opt/imagegen/start"]
"""
NVCC = "#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n"
PROMISE = {
    "id": "debian12-cuda13.0-torch2.11-py3.11-slim",
    "os": {"id": "debian", "version": "12"},
    "cuda": "13.0.2",
    "torch": "2.11.0",
    "python": "3.11",
    "flash_attn": {"version": "2.8.3.post2", "archs": [80]},
}
NASTY = {
    "quotes": "a \"b\" 'c' \\ \\n",
    "HF_TOKEN": "$(touch /pwned)`touch /pwned`${HOME};touch /pwned",
    "IMAGEGEN_PROBE": "x=1\nPATH=/nowhere\n\n'\"$(touch /pwned)\n é 漢 \t",
    "EMPTY": "",
    "SSH_PUBLIC_KEY_NOTE": "a=b=c",
    "LD_LIBRARY_PATH": "/opt/a:/opt/b",
    # Names that the start script could have used for itself.
    **dict.fromkeys(("line", "rest", "main", "service", "status", "token", "root"), "mine"),
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
def image(
    engine: Docker, local_base: Base, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A base with OpenSSH and JupyterLab, and our files where every image has them."""
    context = tmp_path_factory.mktemp("image")
    (context / "target.json").write_text(json.dumps(PROMISE))
    (context / "nvcc").write_text(NVCC)
    (context / "nvcc").chmod(0o755)
    (context / "Dockerfile").write_text(DOCKERFILE.format(base=local_base.reference))
    name = "imagegen-test/pod:1"
    target = {
        "context": str(context),
        "contexts": {"image": str(plan.context_image())},
        "secret": bake.secrets(NETWORK),
        "output": [f"type=image,name={name},unpack=true"],
        "attest": ["type=provenance,disabled=true"],
    }
    engine.bake({"target": {"default": target}}, NETWORK.secrets, print)
    yield name
    engine.remove(name)


@pytest.fixture(scope="session")
def network(client: Any) -> Iterator[str]:
    made = client.networks.create(f"imagegen-test-{uuid.uuid4().hex[:12]}")
    yield made.name
    made.remove()


@pytest.fixture(scope="session")
def user(client: Any, image: str, network: str) -> Iterator[Box]:
    """A second machine, with a key of each kind, from which the pod is used."""
    container = client.containers.run(
        image, ["sleep", "infinity"], detach=True, init=True, network=network
    )
    try:
        box = Box(container)
        for kind in ("ed25519", "ecdsa", "rsa"):
            assert box.run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", f"/{kind}") == (0, "")
        yield box
    finally:
        container.remove(force=True, v=True)


@pytest.fixture
def pod(client: Any, image: str, network: str) -> Iterator[Callable[..., Box]]:
    """Starts pods: `pod({"PUBLIC_KEY": ...}, files={"/pre_start.sh": ...}, command=[...])`."""
    made = []

    def start(
        env: dict[str, str] | None = None,
        *,
        files: dict[str, str] | None = None,
        command: list[str] | None = None,
        wait: bool = True,
    ) -> Box:
        container = client.containers.create(
            image, command, environment=env or {}, network=network, mem_limit="2g"
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


# --- From outside ---------------------------------------------------------------------------


def peer(user: Box, pod: Box, *arguments: str) -> tuple[int, dict[str, str]]:
    code, out = user.run(
        "python3", "/opt/imagegen/peer.py", pod.container.id[:12], "--key", "/ed25519", *arguments,
        env={"IMAGEGEN_PROBE": NASTY["IMAGEGEN_PROBE"]},
    )  # fmt: skip
    return code, {line["name"]: line["status"] for line in map(json.loads, out.splitlines())}


def test_a_pod_passes_every_check_from_outside(user: Box, pod: Callable[..., Box]) -> None:
    env = {"PUBLIC_KEY": public(user, "ed25519"), "JUPYTER_PASSWORD": "t0ken", **NASTY}
    code, statuses = peer(user, pod(env, wait=False), "--token", "t0ken")
    assert (code, set(statuses.values()), len(statuses)) == (0, {"pass"}, 8), statuses


def test_the_outside_checks_can_fail(user: Box, pod: Callable[..., Box]) -> None:
    box = pod({"PUBLIC_KEY": public(user, "ed25519"), "JUPYTER_TOKEN": "t0ken"})
    only = [
        w for n in ("environment_over_ssh", "jupyter_answers", "key_logs_in") for w in ("--only", n)
    ]
    code, statuses = peer(user, box, "--token", "another", *only)
    assert code == 1
    assert statuses == {
        "key_logs_in": "pass",
        "environment_over_ssh": "fail",
        "jupyter_answers": "fail",
    }


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

SHELLS = ("{}", "bash -lc '{}'", "bash -ic '{}' 2>/dev/null", "bash -c 'bash -lc \"{}\"'")


@pytest.fixture(params=["our start", "a platform's own sshd"])
def reachable(request: pytest.FixtureRequest, user: Box, pod: Callable[..., Box]) -> Box:
    """A pod with NASTY in its environment, also where vast.ai runs its script in place of ours."""
    env = {"PUBLIC_KEY": public(user, "ed25519"), **NASTY}
    if request.param == "our start":
        # As Ubuntu ships it: what comes after this line is read by interactive shells only.
        return pod(env, files={"/root/.bashrc": '[ -z "$PS1" ] && return\n'})
    script = (
        "mkdir -p /root/.ssh; echo \"$PUBLIC_KEY\" > /root/.ssh/authorized_keys; ssh-keygen -A; "
        "mkdir -p /run/sshd; exec bash -c '/usr/sbin/sshd; sleep 600'"
    )  # fmt: skip
    return pod(env, command=["bash", "-c", script], wait=False)


def test_every_shell_over_ssh_has_the_container_s_environment(user: Box, reachable: Box) -> None:
    for name, value in NASTY.items():
        for shell in SHELLS:
            assert ssh(user, reachable, shell.format(f"printenv {name}")) == (0, f"{value}\n"), (
                shell
            )
    for shell in SHELLS:
        found = ssh(user, reachable, shell.format("command -v python3 nvcc; printenv CUDA_HOME"))
        wanted = "/opt/venv/bin/python3\n/usr/local/cuda/bin/nvcc\n/usr/local/cuda\n"
        assert found == (0, wanted), shell
    assert reachable.run("ls", "/pwned")[0] != 0


def test_a_session_keeps_what_the_user_changed(user: Box, pod: Callable[..., Box]) -> None:
    box = pod({"PUBLIC_KEY": public(user, "ed25519"), "HF_TOKEN": "old", "GONE": "x"})
    change = "export HF_TOKEN=new PATH=/mine:$PATH; unset GONE"
    look = "bash -ic 'echo $HF_TOKEN ${PATH%%:*} $GONE' 2>/dev/null"
    assert ssh(user, box, f"{change}; {look}") == (0, "new /mine\n")
    # Without SSH a shell has its variables already; only /etc/profile's PATH is mended.
    login = ("bash", "-lc", "echo $HF_TOKEN; command -v nvcc")
    assert box.run(*login, env={"HF_TOKEN": "mine"}) == (0, "mine\n/usr/local/cuda/bin/nvcc\n")


def test_secrets_are_for_root_only(user: Box, pod: Callable[..., Box]) -> None:
    box = pod({"PUBLIC_KEY": public(user, "ed25519"), "JUPYTER_PASSWORD": "t0ken"})
    eventually(lambda: box.listens(8888), "Jupyter")
    assert "t0ken" not in box.run("ps", "-eo", "args")[1]
    assert (
        box.run("stat", "-c", "%U %a", "/run/imagegen", "/run/imagegen/environ")[1]
        == "root 700\nroot 600\n"
    )


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
        lambda: "Jupyter (/var/log/jupyter.log) ended with status 127" in box.said(), "a sentence"
    )
    assert "SSH did not start" in box.said()
    box.container.reload()
    assert box.container.status == "running"


def test_arguments_are_the_pod_s_main_process(user: Box, pod: Callable[..., Box]) -> None:
    env = {"PUBLIC_KEY": public(user, "ed25519")}
    script = "printenv main service status line; sleep 3; exit 7"
    box = pod(env | NASTY, command=["/opt/imagegen/start", "bash", "-c", script])
    assert ssh(user, box, "true") == (0, "")
    assert box.container.wait(timeout=20)["StatusCode"] == 7
    assert "mine\nmine\nmine\nmine\n" in box.said()


def test_a_main_process_gets_sigterm_and_time(pod: Callable[..., Box]) -> None:
    save = "trap 'sleep 1; echo saved; exit 5' TERM; echo trapped; while :; do sleep 0.1; done"
    box = pod(command=["/opt/imagegen/start", "bash", "-c", save])
    eventually(lambda: "trapped" in box.said(), "the trap")
    box.container.stop(timeout=10)
    assert "saved" in box.said()
    assert box.container.wait()["StatusCode"] == 5


def test_orphans_are_reaped(pod: Callable[..., Box]) -> None:
    box = pod()
    box.run("bash", "-c", "(sleep 0.1 &) ; (sleep 0.1 &)")
    eventually(lambda: "sleep" not in box.run("ps", "-eo", "stat,args")[1], "no sleep left", 5)


def test_the_pod_says_what_it_has(pod: Callable[..., Box]) -> None:
    wanted = (
        "This pod has no GPU, CUDA 13.0.2, torch 2.11.0, flash-attn 2.8.3.post2 and Python 3.11."
    )
    assert wanted in pod().said()


def test_the_pod_says_that_flash_attn_has_no_kernels_for_its_gpu(pod: Callable[..., Box]) -> None:
    tool = "printf '#!/bin/sh\\necho NVIDIA H200, 580.95.05, 9.0\\n' > /usr/local/bin/nvidia-smi"
    box = pod(files={"/pre_start.sh": f"{tool}; chmod +x /usr/local/bin/nvidia-smi"})
    assert "1 x NVIDIA H200, driver 580.95.05, CUDA 13.0.2, torch 2.11.0, " in box.said()
    assert "(without kernels for this GPU's compute capability 9.0)" in box.said()
