"""What vast.ai asks of an image before a pod of it runs: the first half of its suite."""

from __future__ import annotations

import re
from collections.abc import Iterable

from packaging.version import Version

from imagegen.checks.contract import Suite, Trial
from imagegen.checks.pod import Failed, Skip, need, same
from imagegen.checks.shared import amd64, gate, of_one_major, tag

IMAGE = Suite("vast")

BINARIES = (
    *("bash", "sshd", "ssh", "sftp", "ssh-keygen", "tmux", "rsync", "python3", "pip", "curl"),
    *("wget", "apt-get", "service"),
)
PACKAGES = (
    *("openssh-server", "openssh-client", "openssh-sftp-server", "tmux", "rsync"),
    "software-properties-common",
)

MODES = ("/run/sshd root 755", "/root root 700")

PRIVATE = (
    *("/root/.ssh/authorized_keys", "/root/.ssh/id_*", "/etc/ssh/ssh_host_*", "/root/.netrc"),
    *("/root/.vast_api_key", "/root/.config/vastai/vast_api_key", "/root/.runpod/config.toml"),
    *("/root/.aws/credentials", "/root/.docker/config.json", "/root/.git-credentials"),
    *("/root/.cache/huggingface/token", "/root/.kaggle/kaggle.json", "/root/.pypirc"),
)
"""Files that are somebody's own."""

NAMED = r"\w*(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|CREDENTIALS?)"
SECRET = re.compile(
    rf"\b(?P<name>{NAMED})=(?!['\"]?(?:\$|['\"\s]|$|(?:0|1|true|false)\b))\S+"
    r"|\b(?:hf_|ghp_|gho_|github_pat_|glpat-|nvapi-|AKIA|rpa_)[A-Za-z0-9_-]{16,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|\b\w+://[^/\s:@]+:[^/\s@$]+@",
    re.IGNORECASE,
)
"""A secret by its variable's name, by its own form, or in a URL."""

PULL = 12.2
"""GB to pull of vast.ai's own largest PyTorch image for one CUDA version, which takes 10 to 60
minutes where a machine does not have it (platforms 2.7)."""

GB = 10**9

UNREACHABLE = re.compile(
    r"Retrying \(|ConnectionError|SSLError|CERTIFICATE_VERIFY|name resolution|unreachable"
    r"|from versions: none",
    re.IGNORECASE,
)
"""pip's words when no index answers it."""


@IMAGE.clause(
    "/.launch installs what is missing at boot, and where the archive is blocked tries on"
)
def V1_what_launch_installs_is_there(trial: Trial) -> str:
    """Without a network, as on machines that block the distribution's archive."""
    script = f"""
PATH=$PATH:/usr/sbin:/sbin
for name in {" ".join(BINARIES)}; do command -v "$name" >/dev/null || echo "$name"; done
for name in {" ".join(PACKAGES)}; do
    [[ $(dpkg-query -W -f '${{db:Status-Status}}' "$name" 2>/dev/null) == installed ]] ||
        echo "package $name"
done"""
    missing = trial.answer("-c", script, entrypoint=("bash",), network="none").split("\n")[:-1]
    need(not missing, f"expected all that /.launch uses, found missing: {', '.join(missing)}")
    return f"{len(BINARIES)} programs and {len(PACKAGES)} packages, without a network"


@IMAGE.clause(
    "sshd refuses a /run/sshd that others may write: vast-ai/base-image#141, unsloth#4682"
)
def V4_sshd_accepts_the_permissions(trial: Trial) -> str:
    """Under the usual umask, and under 002, which vast.ai's own images have."""
    script = """
test -d /run/sshd && own=true
for mask in 002 022; do
    umask $mask
    test "${own-}" || rm -rf /run/sshd
    mkdir -p /run/sshd
    ssh-keygen -A >/dev/null
    /usr/sbin/sshd -t || exit
    stat -c "$mask %n %U %a" /run/sshd /root
done"""
    done = trial.once("-c", script, entrypoint=("sh",), network="none")
    said = f"`sshd -t`, also under umask 002: expected 0, found {done.code}: {done.err.strip()}"
    need(done.code == 0, said)
    rows = [f"{mask} {row}" for mask in ("002", "022") for row in MODES]
    same("umask, owner and mode", rows, done.out.splitlines())
    return "/run/sshd is 755, /root is 700 and sshd -t is content, also under umask 002"


@IMAGE.clause("Jupyter mode installs Jupyter at boot, over the image's own libraries", timeout=300)
def V10_installing_jupyter_changes_nothing(trial: Trial) -> str:
    """Offline what is there; with the bridge network what ``pip install jupyter`` does to torch."""
    script = """
python3 -m jupyter lab --version && python3 -m notebook --version || exit
python3 -m pip install --quiet --dry-run --no-index jupyter >&2 || exit
compgen -G '/usr/lib/python3*/EXTERNALLY-MANAGED' || echo free
"""
    out = trial.answer("-c", script, entrypoint=("bash",), network="none", timeout=120)
    lab, notebook, managed = out.split("\n")[:3]
    if managed != "free":
        breaks = trial.environment.get("PIP_BREAK_SYSTEM_PACKAGES")
        same(f"PIP_BREAK_SYSTEM_PACKAGES, because there is {managed}", "1", breaks)
    script = """
torch() { python3 -c 'from importlib.metadata import version; print(version("torch"))'; }
torch 2>/dev/null || echo none
python3 -m pip install --quiet --retries 1 --timeout 10 jupyter >&2 || exit
torch 2>/dev/null || echo none
"""
    done = trial.once("-c", script, entrypoint=("bash",), timeout=240)
    last = (done.err.strip() or "nothing").splitlines()[-1][-300:]
    if done.code and UNREACHABLE.search(done.err):
        raise Skip(f"without a network all is there; no package index answers a pod here: {last}")
    need(done.code == 0, f"`pip install jupyter`: expected 0, found {done.code}: {last}")
    before, after = done.out.split()
    same("torch after `pip install jupyter`", before, after)
    return f"JupyterLab {lab} and notebook {notebook} without a network; torch stays {before}"


@IMAGE.clause("[Automatic] takes an image by cuda-X.Y in its tag; as a number 12.10 is below 12.9")
def V12_the_tag_says_the_cuda(trial: Trial) -> str:
    """The tag, against what is inside; a template's filter for CUDA is made of the same promise."""
    text = tag(trial)
    found = re.search(r"cuda-(\d+\.\d+)", text)
    if not found and (not text or not trial.promise):
        raise Skip(f"no cuda-X.Y in the tag ({text or 'not known'}), by which [Automatic] chooses")
    need(found, f"the tag: expected cuda-X.Y in it, found {text or 'no tag'}")
    named = found[1] if found else ""
    need(re.fullmatch(r"\d+\.\d", named), f"one digit after the point: expected, found {named}")
    script = """
nvcc --version 2>/dev/null | sed -n 's/.*release \\([0-9.]*\\),.*/nvcc \\1/p'
python3 -c 'import torch; print("torch", torch.version.cuda)' 2>/dev/null
true"""
    out = trial.answer("-c", script, entrypoint=("bash",), network="none")
    for what, version in _versions(out.splitlines()):
        newer = f"CUDA of {what}: expected at most {named}, which the tag says, found {version}"
        need(version <= Version(named), newer)
    if promised := trial.promise.get("cuda"):
        same("CUDA of the tag", ".".join(str(promised).split(".")[:2]), named)
    return f"{text}: CUDA {named}; inside: {', '.join(out.splitlines()) or 'none'}"


@IMAGE.clause("a token in a layer, or one host key in every pod, is everybody's: atmoz/sftp#32")
def V13_nothing_private_is_in_it(trial: Trial) -> str:
    """The history, the variables and the files; not what a later layer hides."""
    environment = [f"{name}={value}" for name, value in trial.environment.items()]
    places = {"its history": trial.engine.history(trial.bytes), "its variables": environment}
    for where, texts in places.items():
        for secret in filter(None, map(SECRET.search, texts)):  # never told itself
            what = secret["name"] or f"something of the form {secret[0][:4]}..."
            raise Failed(f"expected no secret, found {what} in {where}")
    script = f"ls -d {' '.join(PRIVATE)} 2>/dev/null; true"
    files = trial.answer("-c", script, entrypoint=("sh",), network="none").split()
    need(not files, f"expected no file of anybody's own, found {', '.join(files)}")
    return "no secret in its history and variables; no key, token or host key among its files"


@IMAGE.clause(
    "an image that takes an hour to pull, or fills a disk that is chosen without its size"
)
def V16_it_can_be_pulled(trial: Trial) -> str:
    """By the engine's own sizes; the disk that it needs is reported, a template asks for it.

    Not covered: what machines have already of an image's base, which needs their registries.
    """
    unpacked = trial.engine.unpacked(trial.bytes) / GB
    pulled = int(trial.config["Size"]) / GB  # of the layers as stored, in the containerd store
    need(pulled <= PULL, f"to pull: expected at most {PULL} GB, found {pulled:.1f} GB")
    disk = f"{pulled + unpacked:.1f} GB of a disk"
    return f"{disk} before any work: {pulled:.1f} GB to pull, {unpacked:.1f} GB unpacked"


@IMAGE.clause("an image for another kind of processor, which ends as `exec format error`")
def V17_it_is_for_amd64(trial: Trial) -> str:
    """Of the image that is here."""
    return amd64(trial)


@IMAGE.clause("driver 610 renamed the CUDA version in nvidia-smi's heading (its docs/adr/0024)")
def V18_it_asks_for_the_gpu(trial: Trial) -> str:
    """The variables of NVIDIA's runtime, and what the image starts with does not read headings."""
    lowest = gate(trial)
    named = re.search(r"cuda-(\d+\.\d+)", tag(trial))
    if cuda := named[1] if named else str(trial.promise.get("cuda", "")):
        of_one_major(lowest, Version(cuda), f"as the image is for CUDA {cuda}")
    config = trial.config["Config"]
    words = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ()), "/opt/imagegen"]
    script = "grep -rIsEl 'CUDA (UMD |KMD )?Version' -- \"$@\"; true"
    paths = [word for word in words if word.startswith("/")]
    reading = trial.answer("-c", script, "sh", *paths, entrypoint=("sh",), network="none").split()
    need(not reading, f"expected nothing to read nvidia-smi's heading, found {', '.join(reading)}")
    return f"all that NVIDIA's runtime needs, cuda>={lowest}; nobody reads nvidia-smi's heading"


def _versions(lines: Iterable[str]) -> list[tuple[str, Version]]:
    """Name and version of lines like ``nvcc 13.0``; a torch without CUDA says None."""
    pairs = (line.split() for line in lines)
    return [(pair[0], Version(pair[1])) for pair in pairs if len(pair) == 2 and pair[1] != "None"]
