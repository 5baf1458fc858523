"""A small image that keeps both platforms' contracts, and the broken ones that are made of it.

Everything that a platform meets is real: our start script, sshd, JupyterLab, PAM. What makes an
image large (torch, flash-attn, nvcc, cuobjdump) is a stand-in that says its version.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from imagegen.build import bake
from imagegen.engine.docker import Docker
from imagegen.net import settings
from imagegen.plan import recipe
from imagegen.util.files import context_image

PROMISE = {
    "id": "debian12-cuda13.0-torch2.11-py3.11-slim",
    "os": {"id": "debian", "version": "12"},
    "cuda": "13.0.2",
    "torch": "2.11.0",
    "torch_cuda": "13.0",
    "python": "3.11",
    "driver": "580.65.06",
    "archs": [75, 80, 86, 90, 100, 120],
    "flash_attn": {
        "generation": 2,
        "version": "2.8.3.post2",
        "archs": [80],
        "head_dims": [128],
        "dtypes": ["bf16"],
        "features": ["backward"],
    },
    "packages": ["jupyterlab"],
}
NAME = "imagegen-test/small"
TAG = "torch2.11.0-cu1302-cuda-13.0-py3.11-debian12-slim"

TORCH = """\
from types import SimpleNamespace
__version__ = "2.11.0+cu130"
version = SimpleNamespace(cuda="13.0")
cuda = SimpleNamespace(
    is_available=lambda: False,
    get_arch_list=lambda: ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"],
)
"""
FILES = {
    "site/torch/__init__.py": TORCH,
    "site/flash_attn/__init__.py": '__version__ = "2.8.3.post2"\n',
    "site/flash_attn_2_cuda.py": "",
    "site/torch-2.11.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: torch\nVersion: 2.11.0\n",
    "bin/nvcc": "#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n",
    "bin/cuobjdump": "#!/bin/sh\necho 'ELF file    1: flash_fwd.sm_80.cubin'\n",
    "target.json": json.dumps(PROMISE),
}
DOCKERFILE = """\
FROM {base}
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN --mount=type=bind,from=image,source=build,target=/build --mount=type=secret,id=ca,mode=0444 \\
    /build/with-network /build/apt-install {apt}
ENV CUDA_HOME=/usr/local/cuda VIRTUAL_ENV=/opt/venv \\
    PATH=/opt/venv/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN --mount=type=bind,from=image,source=build,target=/build --mount=type=secret,id=ca,mode=0444 \\
    python3 -m venv /opt/venv && /build/with-network /opt/venv/bin/pip install -q jupyter uv
COPY bin/ /usr/local/cuda/bin/
COPY site/ /opt/venv/lib/python3.11/site-packages/
RUN mkdir -p /etc/imagegen && echo torch==2.11.0 > /etc/imagegen/constraints.txt
COPY target.json /etc/imagegen/
ENV PIP_CONSTRAINT=/etc/imagegen/constraints.txt UV_CONSTRAINT=/etc/imagegen/constraints.txt \\
    PIP_BREAK_SYSTEM_PACKAGES=1 LANG=C.UTF-8 SHELL=/bin/bash NVIDIA_VISIBLE_DEVICES=all \\
    NVIDIA_DRIVER_CAPABILITIES=compute,utility NVIDIA_REQUIRE_CUDA="cuda>=13.0"
COPY --from=image pod/ checks/ /opt/imagegen/
RUN --mount=type=bind,from=image,source=build,target=/build /build/pod-setup
LABEL imagegen.target='{promise}'
WORKDIR /root
EXPOSE 22 8888
ENTRYPOINT ["/usr/bin/tini", "-s", "-g", "--", "/opt/imagegen/start"]
CMD ["sleep", "infinity"]
"""
HEAVY = {"build-essential", "ninja-build", "python3-dev"}


def build(engine: Docker, base: str, network: settings.Network) -> str:
    """The image that keeps every clause; returns its name."""
    apt = " ".join(sorted({*recipe.APT, "gcc", "libc6-dev"} - HEAVY))
    text = DOCKERFILE.format(base=base, apt=apt, promise=json.dumps(PROMISE))
    return _baked(engine, f"{NAME}:{TAG}", text, FILES, network)


def broken(engine: Docker, small: str, what: str, lines: str, network: settings.Network) -> str:
    """``small`` with one thing changed by the lines of a Dockerfile; returns its name.

    The tag stays what it was: only ``what``, part of the repository, differs.
    """
    return build_from(engine, small, f"{NAME}-{what}:{TAG}", lines, {}, network)


def build_from(
    engine: Docker,
    small: str,
    name: str,
    lines: str,
    files: dict[str, str],
    network: settings.Network,
) -> str:
    """``small``, changed by the lines of a Dockerfile that may copy ``files``, as ``name``."""
    text = f'FROM {small}\nSHELL ["/bin/bash", "-euo", "pipefail", "-c"]\n{lines}\n'
    return _baked(engine, name, text, files, network)


def _baked(
    engine: Docker, name: str, dockerfile: str, files: dict[str, str], network: settings.Network
) -> str:
    with tempfile.TemporaryDirectory() as folder:
        for path, text in {**files, "Dockerfile": dockerfile}.items():
            file = Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755 if path.startswith("bin/") or path.endswith(".sh") else 0o644)
        target = {
            "context": folder,
            "contexts": {"image": str(context_image())},
            "secret": bake.secrets(network),
            "output": [f"type=image,name={name},unpack=true"],
            "attest": ["type=provenance,disabled=true"],
        }
        engine.bake({"target": {"default": target}}, bake.environment(network.secrets))
    return name
