"""A base image from the distribution's own packages, for networks that reach no image registry.

The root file system is mmdebstrap's; it is wrapped here into an OCI archive byte for byte, because
every tool that would do it stamps the current time into the image and so changes its digest.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import logging
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imagegen.compat.facts.files import load
from imagegen.compat.query import codenames
from imagegen.errors import EngineError
from imagegen.model.target import Os
from imagegen.util import process

log = logging.getLogger(__name__)

EPOCH = "1700000000"
"""SOURCE_DATE_EPOCH: every file's newest time. Any fixed instant gives the same digest twice."""

SLIM = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
"""What no container reads; licence texts (``copyright``) stay."""

INCLUDE = ("ca-certificates",)

INDEX_TARGETS = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(CREATED_BY)|$(ORIGIN)"
ORIGINS = ("Debian", "Ubuntu")


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """A bootstrapped base: an OCI archive, the reference that it loads as, and its digest."""

    archive: Path
    reference: str
    digest: str


def sources(codename: str, index_targets: str) -> tuple[str, ...]:
    """The ``deb`` lines of the distribution's own suites, read from this machine's apt.

    ``index_targets`` is what ``apt-get indextargets --format INDEX_TARGETS`` prints.

    Raises:
        EngineError: this machine's apt knows no source of ``codename``.
    """
    suites = {codename, f"{codename}-updates", f"{codename}-security"}
    found: dict[tuple[str, str], list[str]] = {}
    for row in index_targets.splitlines():
        uri, suite, component, kind, *origin = row.split("|")
        # Other vendors name their suites after the distribution's, too.
        own = not origin or origin[0] in ORIGINS
        if kind == "Packages" and suite in suites and own:
            components = found.setdefault((uri, suite), [])
            components += [component] if component not in components else []
    if not any(suite == codename for _, suite in found):
        raise EngineError(
            f"apt on this machine has no source for {codename}",
            hint="run apt-get update, or use a base image from a registry: --base pull",
        )
    return tuple(f"deb {uri} {suite} {' '.join(parts)}" for (uri, suite), parts in found.items())


def host_os(os_release: str) -> tuple[str, str]:
    """This machine's distribution and its codename, from the text of /etc/os-release."""
    rows = dict(row.split("=", 1) for row in os_release.splitlines() if "=" in row)
    values = {name: value.strip("\"'") for name, value in rows.items()}
    return (
        f"{values.get('ID', 'unknown')}{values.get('VERSION_ID', '')}",
        values.get("VERSION_CODENAME", ""),
    )


def release_of(os: Os, os_release: str) -> str:
    """The codename of ``os``, on a machine that can bootstrap it: of the same distribution.

    Raises:
        EngineError: it is of another one.
    """
    here, codename = host_os(os_release)
    if here == os.name:
        return codename
    names = {f"{os.distribution}{release}": name for name, release in codenames(load()).items()}
    if here.rstrip("0123456789.") != os.distribution or os.name not in names:
        raise EngineError(
            f"a base of {os.name} is bootstrapped from {os.name}'s own apt, and this is {here}",
            hint="pull the base from a registry instead: --base pull",
        )
    return names[os.name]


def bootstrap(os: Os, cache: Path, *, fresh: bool = False) -> Base:
    """Make the base of ``os``, or reuse the one in ``cache``; same packages, same digest.

    Raises:
        EngineError: mmdebstrap is missing or failed, this machine runs another distribution, or its
            apt has no source for that release.
    """
    codename = release_of(os, Path("/etc/os-release").read_text())
    folder = cache / "base"
    folder.mkdir(parents=True, exist_ok=True)
    archive, note = folder / f"{os.name}.oci.tar", folder / f"{os.name}.json"
    with (folder / f"{os.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once make it once
        if fresh or not (archive.exists() and note.exists()):
            note.unlink(missing_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as work:
                rootfs = Path(work) / "rootfs.tar"
                _mmdebstrap(codename, rootfs)
                digest = oci_archive(rootfs, Path(work) / "oci.tar", _config(os), reference(os))
                (Path(work) / "oci.tar").replace(archive)
            note.write_text(json.dumps({"digest": digest}))
        else:
            log.info(f"base {os.name}: reusing {archive} (--fresh-base makes a new one)")
    return stored(os, cache)


def stored(os: Os, cache: Path) -> Base:
    """The base of ``os`` that ``cache`` holds.

    Raises:
        EngineError: it holds none.
    """
    if not (digest := known_digest(os, cache)):
        raise EngineError(
            f"there is no base of {os.name} in {cache}", hint="--fresh-base makes one"
        )
    archive = cache / "base" / f"{os.name}.oci.tar"
    return Base(archive=archive, reference=reference(os), digest=digest)


def known_digest(os: Os, cache: Path) -> str:
    """The digest of the base that ``cache`` holds; empty where it holds none."""
    note, archive = (cache / "base" / f"{os.name}{end}" for end in (".json", ".oci.tar"))
    return str(json.loads(note.read_text())["digest"]) if note.exists() and archive.exists() else ""


def reference(os: Os) -> str:
    """The local name that a bootstrapped base is loaded as."""
    return f"imagegen/base:{os.name}"


def _mmdebstrap(codename: str, rootfs: Path) -> None:
    targets = process.run("apt-get", "indextargets", "--format", INDEX_TARGETS, timeout=60)
    lines = sources(codename, targets)
    listing = rootfs.with_name("sources.list")
    listing.write_text("\n".join(lines) + "\n")
    excludes = [f"--dpkgopt=path-exclude={pattern}" for pattern in SLIM]
    code, last = process.stream(
        "mmdebstrap",
        "--variant=apt",
        f"--include={','.join(INCLUDE)}",
        *excludes,
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        codename,
        rootfs,
        listing,
        doing=f"bootstrapping {codename}",
        env={"SOURCE_DATE_EPOCH": EPOCH},
    )
    if code:
        raise EngineError(
            f"mmdebstrap exited {code}\n" + "\n".join(last[-10:]),
            hint="imagegen doctor says whether mmdebstrap is installed and the disk has room",
        )


def _config(os: Os) -> Mapping[str, object]:
    return {
        "Cmd": ["bash"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Labels": {"org.opencontainers.image.title": f"{os.name}, bootstrapped from its packages"},
    }


def oci_archive(rootfs: Path, archive: Path, config: Mapping[str, object], reference: str) -> str:
    """Wrap the tar ``rootfs`` as a one-layer OCI image in the tar ``archive``.

    Returns the manifest's digest, which depends on the arguments alone.
    """
    layer = rootfs.with_suffix(".tar.gz")
    diff_id = _pack(rootfs, layer)
    created = "2023-11-14T22:13:20Z"  # EPOCH
    image = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": created,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": created, "created_by": "mmdebstrap"}],
        }
    )
    kind = "application/vnd.oci.image"
    layer_digest = _file_digest(layer)
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": _descriptor(f"{kind}.config.v1+json", _digest(image), len(image)),
            "layers": [
                _descriptor(f"{kind}.layer.v1.tar+gzip", layer_digest, layer.stat().st_size)
            ],
        }
    )
    entry = _descriptor(f"{kind}.manifest.v1+json", _digest(manifest), len(manifest))
    entry["annotations"] = {
        "io.containerd.image.name": f"docker.io/{reference}",
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    index = _json({"schemaVersion": 2, "mediaType": f"{kind}.index.v1+json", "manifests": [entry]})
    with tarfile.open(archive, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", index)
        for blob in (image, manifest):
            _add(tar, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
        info = tarfile.TarInfo(f"blobs/sha256/{layer_digest.removeprefix('sha256:')}")
        info.size = layer.stat().st_size
        with layer.open("rb") as file:
            tar.addfile(info, file)
    return _digest(manifest)


def _pack(plain: Path, packed: Path) -> str:
    """Compress ``plain`` without a time or a name in it; returns the digest of ``plain``."""
    digest = hashlib.sha256()
    with (
        plain.open("rb") as source,
        packed.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, compresslevel=1, filename="") as sink,
    ):
        while block := source.read(1 << 20):
            digest.update(block)
            sink.write(block)
    return f"sha256:{digest.hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _add(tar: tarfile.TarFile, name: str, blob: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(blob)
    tar.addfile(info, io.BytesIO(blob))
