"""Inventory -> SBOM: SPDX 2.3 as JSON, the same bytes for the same image and time.

Fields, their words and what is required: the SPDX specification 2.3, clauses 6, 7 and 11. Package
URLs: the purl specification's types deb, pypi and oci.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from imagegen import __version__
from imagegen.inventory.contents import Dpkg, Inventory, PythonPackage, Release

ROOT = "SPDXRef-Image"
NONE = "NOASSERTION"


def spdx(inventory: Inventory, *, name: str, digest: str, created: datetime) -> dict[str, object]:
    """The document about the image ``name``, whose manifest has ``digest`` (``sha256:…``)."""
    rows = [_deb(one, inventory.os) for one in inventory.dpkg]
    rows += [_pypi(one) for one in inventory.python]
    # by its id, so that what a database names twice is there once
    packages = [row for _, row in sorted({str(row["SPDXID"]): row for row in rows}.items())]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "creationInfo": {
            "created": created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: imagegen-{__version__}"],
        },
        "packages": [_image(name, digest), *packages],
        "relationships": [
            _relationship("SPDXRef-DOCUMENT", "DESCRIBES", ROOT),
            *(_relationship(ROOT, "CONTAINS", str(row["SPDXID"])) for row in packages),
        ],
    }


def _relationship(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _image(name: str, digest: str) -> dict[str, object]:
    short = name.partition("@")[0].rpartition("/")[2].partition(":")[0]
    purl = f"pkg:oci/{_quoted(short.lower())}@{_quoted(digest)}"
    row = _package(ROOT, name, digest, purl)
    hashed = {"algorithm": "SHA256", "checksumValue": digest.removeprefix("sha256:")}
    return row | {"primaryPackagePurpose": "CONTAINER", "checksums": [hashed]}


def _deb(one: Dpkg, release: Release) -> dict[str, object]:
    where = {"arch": one.arch}
    if release.id:
        where["distro"] = f"{release.id}-{release.version}"
    kind = f"deb/{release.id or 'debian'}"
    purl = _purl(kind, one.name.lower(), one.version, where)
    row = _package(_id("deb", one.name, purl), one.name, one.version, purl)
    return row | {"sourceInfo": f"built from the source package {one.source}"}


def _pypi(one: PythonPackage) -> dict[str, object]:
    purl = _purl("pypi", one.name.lower().replace("_", "-"), one.version, {})
    row = _package(_id("pypi", one.name, f"{purl} {one.location}"), one.name, one.version, purl)
    row["sourceInfo"] = f"installed in {one.location}"
    # A LicenseRef would have to come with its text, and not all that is written there is SPDX.
    if one.expression and "LicenseRef-" not in one.expression:
        row["licenseDeclared"] = one.expression
    elif said := one.expression or one.license:
        row["licenseComments"] = f"the package says: {said}"
    return row


def _package(id_: str, name: str, version: str, purl: str) -> dict[str, object]:
    reference = {
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": purl,
    }
    return {
        "SPDXID": id_,
        "name": name,
        "versionInfo": version,
        "downloadLocation": NONE,
        "filesAnalyzed": False,
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
        "externalRefs": [reference],
    }


def _id(kind: str, name: str, of: str) -> str:
    """Of letters, digits, ``.`` and ``-``, as 3.2.4 wants; what it stands for makes it unique."""
    word = re.sub(r"[^A-Za-z0-9.-]", "-", name)
    return f"SPDXRef-{kind}-{word}-{hashlib.sha256(of.encode()).hexdigest()[:12]}"


def _purl(kind: str, name: str, version: str, qualifiers: Mapping[str, str]) -> str:
    words = "&".join(f"{key}={_quoted(value)}" for key, value in sorted(qualifiers.items()))
    return f"pkg:{kind}/{_quoted(name)}@{_quoted(version)}{'?' * bool(words)}{words}"


def _quoted(word: str) -> str:
    return quote(word, safe="")
