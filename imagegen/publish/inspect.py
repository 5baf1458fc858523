"""An image of a registry, with all that its labels say and all that is attached to it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from imagegen.errors import RegistryError, UsageError
from imagegen.model.report import Report
from imagegen.model.target import REPOSITORY
from imagegen.net.address import registry_host
from imagegen.net.registry import Descriptor, Repository
from imagegen.platforms import needed
from imagegen.publish.remote import PROVENANCE, REPORT, SBOM, RemoteImage, see, worth

KINDS = {"report": REPORT, "sbom": SBOM, "provenance": PROVENANCE}

REF = re.compile(
    rf"(?P<name>{REPOSITORY})(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attached:
    """A document beside an image; ``body`` is empty for a kind that imagegen does not read."""

    referrer: Descriptor
    body: bytes = b""

    @property
    def document(self) -> Any:
        """Its JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspected:
    """What a registry tells of ``ref``. ``report`` is the newest that passed, if any did."""

    ref: str
    seen: RemoteImage
    attached: tuple[Attached, ...]
    report: Report | None

    def bodies(self, kind: str) -> tuple[bytes, ...]:
        """The documents of one of ``KINDS``."""
        wanted = KINDS[kind]
        return tuple(one.body for one in self.attached if one.referrer.artifact_type == wanted)


def inspect(ref: str, *, ca: str = "") -> Inspected:
    """Read an image's manifest, labels and what is attached to it; no layer is fetched.

    Raises:
        UsageError: it is no reference of a registry. RegistryError: there is no such image.
    """
    repository, at = _parsed(ref, ca)
    seen = see(repository, at)
    if seen is None:
        raise RegistryError(f"{ref} is not there", hint="imagegen push puts images there")
    digest = seen.manifest.digest
    attached = tuple(_read(repository, one) for one in repository.referrers(digest))
    passed = []
    for one in attached:
        if one.referrer.artifact_type == REPORT:
            try:
                found = Report.parse(one.body)
            except ValueError:  # of another version of imagegen
                continue
            passed += [found] * found.allows(digest, needed())
    newest = max(passed, key=worth, default=None)
    return Inspected(ref=ref, seen=seen, attached=attached, report=newest)


def _parsed(ref: str, ca: str) -> tuple[Repository, str]:
    parts = REF.fullmatch(ref)
    if not parts or not registry_host(ref):
        raise UsageError(
            f"{ref} is not an image of a registry",
            hint="host/name:tag or host/name@sha256:…, e.g. ghcr.io/me/finetune:latest",
        )
    at = parts["digest"] or parts["tag"] or "latest"
    return Repository(parts["name"], ca=ca), at


def _read(repository: Repository, referrer: Descriptor) -> Attached:
    known = referrer.artifact_type in KINDS.values()
    return Attached(referrer=referrer, body=repository.attached(referrer) if known else b"")
