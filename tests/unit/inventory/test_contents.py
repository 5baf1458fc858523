"""What is inside an image: the look at its files, the strict reading of it, and the SBOM."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.errors import EngineError
from imagegen.inventory import contents, inside
from imagegen.inventory.contents import Dpkg, Inventory, PythonPackage
from imagegen.inventory.inside import Folder
from imagegen.inventory.sbom import spdx
from tests.support.values import DIGEST

SITE = "/opt/venv/lib/python3.12/site-packages"
FOUND: dict[str, Any] = {
    "os": {"id": "debian", "version": "12"},
    "files": 3,
    "bytes": 60,
    "kinds": {"apt": 50, "cuda": 10},
    "dpkg": [
        {"name": "libstdc++6", "version": "1:12.2.0-14+deb12u1", "arch": "amd64", "bytes": 1024,
         "source": "gcc-12"},
        {"name": "libstdc++6", "version": "1:12.2.0-14+deb12u1", "arch": "i386", "bytes": 1024,
         "source": "gcc-12"},
    ],
    "python": [
        {"name": "Flash_Attn", "version": "2.8.3+cu130", "location": SITE, "bytes": 9,
         "license": "BSD 3-Clause", "expression": ""},
        {"name": "numpy", "version": "2.1", "location": SITE, "bytes": None, "license": "",
         "expression": "BSD-3-Clause AND MIT"},
        {"name": "numpy", "version": "2.1", "location": "/usr/lib/python3/dist-packages",
         "bytes": 5, "license": "", "expression": "LicenseRef-own"},
    ],
    "tree": {"name": "/", "bytes": 60, "kind": "apt", "children": [
        {"name": "usr", "bytes": 60, "kind": "apt", "children": []}]},
    "copies": [{"bytes": 5, "sha256": "0" * 64, "paths": ["/a", "/b", "/c"]}],
    "versions": [{"soname": "libz.so.1", "places": [
        {"path": "/a/libz.so.1", "bytes": 1}, {"path": "/b/libz.so.1", "bytes": 2}]}],
}  # fmt: skip
INVENTORY = contents.parsed(json.dumps(FOUND), "ref")


# --- reading --------------------------------------------------------------------------------------


def test_an_inventory_is_read() -> None:
    assert INVENTORY.dpkg[0].source == "gcc-12"
    assert INVENTORY.python[1].bytes is None
    assert INVENTORY.copies[0].spare == 10
    assert INVENTORY.tree.children[0].kind == "apt"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"files": "3"}, "files"),
        ({"bytes": -1}, "bytes"),
        ({"nonsense": 1}, "nonsense"),
        ({"kinds": {"gpu": 1}}, "kinds"),
        ({"os": {"id": "debian"}}, "os.version"),
        ({"dpkg": [{"name": "x"}]}, "dpkg.0.version"),
        ({"copies": [{"bytes": 1, "sha256": "x", "paths": ["/a", "/b"]}]}, "copies.0.sha256"),
        ({"tree": {"name": "/", "bytes": 1, "kind": "apt"}}, "tree.children"),
    ],
)
def test_anything_else_is_refused_with_its_place(change: dict[str, Any], place: str) -> None:
    with pytest.raises(EngineError, match=f"looking into ref: .*{re.escape(place)}"):
        contents.parsed(json.dumps(FOUND | change), "ref")


def test_a_name_cannot_speak_to_the_terminal() -> None:
    name = "a\x1b]0;title\x07\n\u202eb"
    change = {"copies": [{"bytes": 1, "sha256": "0" * 64, "paths": [name, "/b"]}]}
    (found,) = contents.parsed(json.dumps(FOUND | change), "ref").copies
    assert found.paths[0] == "a\ufffd]0;title\ufffd\ufffd\ufffdb"


@pytest.mark.parametrize("text", ["", "hello", "[]", "null", json.dumps(FOUND)[:-1]])
def test_what_is_no_inventory_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match="looking into ref"):
        contents.parsed(text, "ref")


# --- looking --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (f"{SITE}/nvidia/cublas/lib/libcublas.so.12", "cuda"),
        (f"{SITE}/nvidia_cublas-13.dist-info/RECORD", "cuda"),
        ("/usr/local/cuda-12.8/bin/nvcc", "cuda"),
        ("/usr/lib/x86_64-linux-gnu/libcudnn_adv.so.9", "cuda"),
        (f"{SITE}/torch/lib/libtorch.so", "torch"),
        (f"{SITE}/triton/_C/libtriton.so", "torch"),
        (f"{SITE}/torchvision/_C.so", "torch"),
        (f"{SITE}/numpy/core.so", "python"),
        ("/usr/lib/python3/dist-packages/apt_pkg.so", "apt"),
        ("/var/lib/dpkg/status", "apt"),
        ("/root/.bashrc", "other"),
    ],
)
def test_a_file_has_a_kind(path: str, kind: str) -> None:
    assert inside.kind(path, {"/usr/lib/python3/dist-packages/apt_pkg.so"}) == kind


NAMES = st.text("abc", min_size=1, max_size=3)
FILES = st.lists(
    st.tuples(NAMES, st.integers(0, 10**6), st.sampled_from(["apt", "cuda"])), max_size=4
)


def folders(children: Any) -> Any:
    return st.builds(Folder, folders=st.dictionaries(NAMES, children, max_size=3), own=FILES)


@given(st.recursive(st.builds(Folder, own=FILES), folders, max_leaves=20), st.integers(1, 10**6))
def test_a_tree_adds_up_whatever_is_left_out(root: Folder, least: int) -> None:
    inside.total(root)

    def check(row: dict[str, Any]) -> None:
        if row["children"]:
            assert sum(child["bytes"] for child in row["children"]) == row["bytes"]
        for child in row["children"]:
            assert child["bytes"] >= least or child["name"] == "(other)"
            check(child)

    row = inside.pruned("/", root, least)
    assert row["bytes"] == root.bytes == sum(root.kinds.values())
    check(row)


def test_a_large_tree_has_room() -> None:
    root = Folder()
    for i in range(300):
        own = [(f"{'x' * 40}{j}", 1000 + j, "other") for j in range(300)]
        root.folders[f"{'y' * 40}{i}"] = Folder(own=own)
    inside.total(root)
    row = inside.tree(root)
    assert len(json.dumps(row)) <= inside.ROOM
    assert row["bytes"] == root.bytes


def test_copies_and_versions_are_told_from_one_another(tmp_path: Path) -> None:
    def file(name: str, data: bytes) -> tuple[str, int]:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name), len(data)

    head = b"h" * 70_000  # alike up to here
    paths = [file("a", head + b"1")[0], file("b", head + b"1")[0], file("c", head + b"2")[0]]
    (found,) = inside.copies({70_001: [*paths, str(tmp_path / "gone")], 5: ["alone"]})
    assert found["paths"] == paths[:2]
    assert found["bytes"] == 70_001
    libraries = {
        "liba.so.1": [file("1", b"x"), file("2", b"y")],  # of one length
        "libb.so.1": [file("3", b"x"), file("4", b"x")],
        "libc.so.1": [file("5", b"x"), file("6", b"xx")],
    }
    assert [row["soname"] for row in inside.versions(libraries)] == ["liba.so.1", "libc.so.1"]


def test_a_name_that_is_no_text_can_be_printed() -> None:
    assert inside.readable(os.fsdecode(b"a\xff")) == "a\ufffd"


def test_a_python_package_tells_its_licence_and_its_bytes(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    info = site / "x-1.dist-info"
    info.mkdir(parents=True)
    (site / "x.pyc").write_bytes(b"12345")
    (info / "RECORD").write_text('x.py,sha256=a,10\n"x,y.py",sha256=b,20\nx.pyc,,\ngone.pyc,,\n')
    (info / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: x\nVersion: 1\nClassifier: License :: OSI Approved :: MIT\n"
        "Classifier: Programming Language :: Python\nLicense-Expression: MIT\n\nName: not this\n"
    )
    (site / "x-1.egg-info").write_text("Name: x\nVersion: 1\n")  # as Debian's cryptography has
    (site / "bare-2.egg-info").write_text("Name: bare\nVersion: 2\nLicense: BSD\n  more\n")
    vendored = site / "x/_vendor/y-3.dist-info"
    vendored.mkdir(parents=True)
    bare, twice = site / "bare-2.egg-info", site / "x-1.egg-info"
    rows = inside.python(list(map(str, [info, bare, twice, vendored])))
    shared = {"location": str(site)}
    assert rows == [
        {"name": "bare", "version": "2", "bytes": None, "license": "BSD", "expression": ""}
        | shared,
        {"name": "x", "version": "1", "bytes": 35, "license": "MIT", "expression": "MIT"} | shared,
    ]


# --- SPDX -----------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 22, 11, 30, tzinfo=UTC)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
INVENTORIES = st.builds(
    lambda dpkg, python: replace(INVENTORY, dpkg=tuple(dpkg), python=tuple(python)),
    st.lists(
        st.builds(
            Dpkg, name=WORDS, version=WORDS, arch=WORDS, bytes=st.integers(0, 9), source=WORDS
        ),
        max_size=5,
    ),
    st.lists(
        st.builds(
            PythonPackage,
            name=WORDS,
            version=WORDS,
            location=WORDS,
            bytes=st.none(),
            license=st.one_of(st.just(""), WORDS),
            expression=st.sampled_from(["", "MIT", "LicenseRef-x"]),
        ),
        max_size=5,
    ),
)


def document(found: Inventory = INVENTORY, **changes: Any) -> Any:
    values: dict[str, Any] = {"name": "host.example/me/x:tag", "digest": DIGEST, "created": NOW}
    return json.loads(json.dumps(spdx(found, **(values | changes))))


def check(doc: Any) -> None:
    """The rules of SPDX 2.3 that this document could break; numbers are its clauses."""
    assert doc["spdxVersion"] == "SPDX-2.3"  # 6.1
    assert doc["dataLicense"] == "CC0-1.0"  # 6.2
    assert doc["SPDXID"] == "SPDXRef-DOCUMENT"  # 6.3
    assert doc["name"]  # 6.4
    assert re.fullmatch(r"[a-z][a-z0-9+.-]*:[^#\s]+", doc["documentNamespace"])  # 6.5
    creation = doc["creationInfo"]
    assert all(
        re.match("(Person|Organization|Tool): .", one) for one in creation["creators"]
    )  # 6.8
    datetime.strptime(creation["created"], "%Y-%m-%dT%H:%M:%SZ")
    ids = [row["SPDXID"] for row in doc["packages"]]
    assert len(ids) == len({*ids, "SPDXRef-DOCUMENT"}) - 1  # 3.2.4: unique in the document
    for row in doc["packages"]:
        assert re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", row["SPDXID"])  # 7.2
        assert row["name"]  # 7.1
        assert row["downloadLocation"] == "NOASSERTION"  # 7.7
        assert row["filesAnalyzed"] is False  # 7.8
        assert not {"packageVerificationCode", "licenseInfoFromFiles", "hasFiles"} & {*row}  # 7.9
        assert "LicenseRef-" not in row["licenseDeclared"]  # 10.1: it would need its text
        for one in row["externalRefs"]:  # 7.21
            assert one["referenceCategory"] == "PACKAGE-MANAGER"
            assert one["referenceType"] == "purl"
            assert re.fullmatch(
                r"pkg:(deb/[a-z]+|pypi|oci)/[\w.~%-]+@[\w.~%-]+(\?[a-z]+=[\w.~%-]+(&[a-z]+=[\w.~%-]+)*)?",
                one["referenceLocator"],
                re.ASCII,
            )
        for one in row.get("checksums", []):  # 7.10
            assert one["algorithm"] == "SHA256"
            assert re.fullmatch("[0-9a-f]{64}", one["checksumValue"])
    known = {"SPDXRef-DOCUMENT", *ids}
    for row in doc["relationships"]:  # 11.1
        assert {row["spdxElementId"], row["relatedSpdxElement"]} <= known
        assert row["relationshipType"] in {"DESCRIBES", "CONTAINS"}
    described = [r for r in doc["relationships"] if r["relationshipType"] == "DESCRIBES"]
    assert [row["spdxElementId"] for row in described] == ["SPDXRef-DOCUMENT"]
    contained = {r["relatedSpdxElement"] for r in doc["relationships"] if r not in described}
    assert contained == {*ids} - {described[0]["relatedSpdxElement"]}


@given(INVENTORIES)
def test_a_document_keeps_the_rules(found: Inventory) -> None:
    check(document(found))


def test_the_image_and_its_packages_are_named() -> None:
    doc = document()
    check(doc)
    rows = {row["externalRefs"][0]["referenceLocator"]: row for row in doc["packages"]}
    assert {*rows} == {
        f"pkg:oci/x@sha256%3A{'d' * 64}",
        "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12",
        "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bdeb12u1?arch=i386&distro=debian-12",
        "pkg:pypi/flash-attn@2.8.3%2Bcu130",
        "pkg:pypi/numpy@2.1",
    }
    assert len(doc["packages"]) == 6  # one Python package is there twice
    image = next(row for row in doc["packages"] if row["SPDXID"] == "SPDXRef-Image")
    assert image["checksums"] == [{"algorithm": "SHA256", "checksumValue": "d" * 64}]
    licences = {row["licenseDeclared"] for row in doc["packages"]}
    assert licences == {"NOASSERTION", "BSD-3-Clause AND MIT"}
    said = {row["licenseComments"] for row in doc["packages"] if "licenseComments" in row}
    assert said == {"the package says: BSD 3-Clause", "the package says: LicenseRef-own"}


def test_the_same_image_has_the_same_document_and_another_image_another() -> None:
    turned = replace(INVENTORY, dpkg=INVENTORY.dpkg[::-1], python=INVENTORY.python[::-1])
    assert json.dumps(document()) == json.dumps(document(turned))
    other = document(digest="sha256:" + "e" * 64)
    assert other["documentNamespace"] != document()["documentNamespace"]
