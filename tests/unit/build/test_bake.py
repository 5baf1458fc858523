"""The bake definition: what is escaped, what is a secret, and what never is an argument."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.build import bake
from imagegen.build.bake import Compiling
from imagegen.errors import UsageError
from imagegen.net.settings import Network
from tests.support.values import DEMO, KEY, RESOLUTION, image

HERE = Path("/somewhere")
URLS = {
    "pypi_index": "https://user:pass@pypi.example.com/simple",
    "torch_index": "https://torch.example.com/{backend}",
    "apt_mirror": "https://apt.example.com",
}


def target(network: Network | None = None, **changes: Any) -> dict[str, Any]:
    load, compiling = changes.pop("load", False), changes.pop("compiling", None)
    its = image(**({"context": HERE} | changes))
    document = bake.document([its], HERE / "image", network, compiling, load=load)
    (found,) = document["target"].values()  # type: ignore[attr-defined]
    assert isinstance(found, dict)
    return found


# --- HCL ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("${HOME}", "$${HOME}"),
        ("%{ if true }", "%%{ if true }"),
        ("$HOME {} % $ 100%", "$HOME {} % $ 100%"),
        ("${a}${b}%{c}", "$${a}$${b}%%{c}"),
    ],
)
def test_a_template_becomes_text(text: str, escaped: str) -> None:
    assert bake.hcl(text) == escaped


@given(st.text(alphabet="${}%a\"'\\ "))
def test_no_text_is_a_template_and_none_is_lost(text: str) -> None:
    escaped = bake.hcl(text)
    assert not re.search(r"(?<!\$)\$\{|(?<!%)%\{", escaped)
    assert escaped.replace("$${", "${").replace("%%{", "%{") == text


def test_every_text_of_the_definition_is_escaped(tmp_path: Path) -> None:
    ca = tmp_path / "${ca}.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\n")
    document = bake.document(
        [
            image(
                context=Path("/a/${context}"),
                base_override="local/${base}",
                labels={"a": "${b}%{c}"},
            )
        ],
        Path("/a/%{image}"),
        Network(ca=str(ca)),
    )
    text = json.dumps(document)
    assert text.count("$${") >= 4
    assert not re.search(r"(?<!\$)\$\{|(?<!%)%\{", text)


# --- names ----------------------------------------------------------------------------------------


def test_names_are_names_to_bake_and_stay_apart() -> None:
    names = [bake.name(t) for t in RESOLUTION.targets]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", name) for name in names)
    assert len(set(names)) == len(names)


def test_a_group_holds_every_target() -> None:
    images = [image(t) for t in RESOLUTION.targets]
    document = bake.document(images, HERE)
    assert document["group"] == {"default": {"targets": sorted(document["target"])}}  # type: ignore[call-overload]
    assert len(document["target"]) == len(images)  # type: ignore[arg-type]
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize(
    ("reference", "familiar"),
    [
        ("docker.io/library/debian:12-slim", "debian:12-slim"),
        ("docker.io/nvidia/cuda:13.0.2-base@sha256:0", "nvidia/cuda:13.0.2-base@sha256:0"),
        ("mirror.example.com/library/debian:12-slim", "mirror.example.com/library/debian:12-slim"),
        ("mirror.example.com/nvidia/cuda:1", "mirror.example.com/nvidia/cuda:1"),
    ],
)
def test_a_reference_is_spelled_as_buildkit_spells_it(reference: str, familiar: str) -> None:
    assert bake.familiar(reference) == familiar


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (None, "debian:12-slim"),
        (Network(registry="mirror.example.com"), "mirror.example.com/library/debian:12-slim"),
    ],
)
def test_an_overridden_base_is_a_context_under_the_familiar_name(
    network: Network | None, name: str
) -> None:
    contexts = target(network, base_override="imagegen/base:debian12")["contexts"]
    assert contexts == {
        "image": "/somewhere/image",
        name: "docker-image://imagegen/base:debian12",
    }


def test_a_base_that_is_pulled_is_no_context() -> None:
    assert target()["contexts"] == {"image": "/somewhere/image"}


# --- secrets --------------------------------------------------------------------------------------


def test_settings_are_secrets_and_never_arguments(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\n")
    network = Network(ca=str(ca), registry="mirror.example.com", **URLS)
    found = target(network)
    assert found["args"] == {"REGISTRY": "mirror.example.com"}
    assert found["secret"] == [
        "type=env,id=pypi_index,env=IMAGEGEN_SECRET_PYPI_INDEX",
        "type=env,id=torch_index,env=IMAGEGEN_SECRET_TORCH_INDEX",
        "type=env,id=apt_mirror,env=IMAGEGEN_SECRET_APT_MIRROR",
        f"type=file,id=ca,src={ca}",
    ]
    assert network.secrets == URLS
    named = {row.partition(",env=")[2]: row.split(",")[1] for row in found["secret"][:-1]}
    assert {
        named[variable].removeprefix("id="): url for variable, url in bake.environment(URLS).items()
    } == URLS
    text = json.dumps(found)
    assert not any(url in text for url in URLS.values())
    assert "user:pass" not in text


def test_without_settings_there_is_no_secret_and_no_argument() -> None:
    found = target()
    assert found["args"] == {}
    assert found["secret"] == []


@pytest.mark.parametrize("name", ["pypi_index", "torch_index", "apt_mirror"])
def test_a_setting_that_is_no_url_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        Network(**{name: "user:pass@mirror"})
    assert str(caught.value) == f"--{name.replace('_', '-')}: not a URL"
    assert "pass" not in caught.value.hint


@pytest.mark.parametrize(
    "registry",
    [
        *("mirror.example.com", "localhost:5000", "10.0.0.1:5000/docker.io"),
        "mirror.example.com/a/b_c-d.e",
    ],
)
def test_a_registry_is_a_host_a_port_and_a_path(registry: str) -> None:
    assert target(Network(registry=registry))["args"] == {"REGISTRY": registry}


@pytest.mark.parametrize(
    "registry",
    [
        *("https://mirror.example.com", "mirror.example.com:port", "mirror.example.com/", "a b"),
        *("user:pass@mirror.example.com", "mirror.example.com/x:tag", "${registry}", "/x", "a,b"),
    ],
)
def test_a_registry_with_more_than_that_is_refused(registry: str) -> None:
    with pytest.raises(UsageError, match=r"^--registry: .* is not a registry$") as caught:
        Network(registry=registry)
    assert "host:port" in caught.value.hint


def test_a_ca_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    with pytest.raises(UsageError, match=r"ca\.pem: no such file$") as caught:
        Network(ca=str(file))
    assert "--ca FILE" in caught.value.hint
    file.write_bytes(b"\x30\x82")
    with pytest.raises(UsageError, match="not a CA bundle") as caught:
        Network(ca=str(file))
    assert "SSL_CERT_FILE" in caught.value.hint
    with pytest.raises(UsageError, match="no such file"):
        Network(ca=str(tmp_path))


def test_a_comma_in_the_path_of_a_ca_is_refused(tmp_path: Path) -> None:
    """It would end the value in buildx's comma-separated options, and begin another option."""
    file = tmp_path / "ca,env=HOME.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\n")
    with pytest.raises(UsageError, match="no comma"):
        Network(ca=str(file))


def test_the_ca_is_a_file_and_the_others_are_texts(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\n")
    assert Network(ca=str(ca)).secrets == {}
    assert bake.secrets(Network(ca=str(ca))) == [f"type=file,id=ca,src={ca}"]


# --- flash-attn -----------------------------------------------------------------------------------


def test_what_is_given_is_given_to_its_image_only() -> None:
    given = {KEY: Path("/wheels/${x}"), "f" * 64: Path("/other")}
    assert target(compiling=Compiling(prebuilt=given))["contexts"] == {
        "image": "/somewhere/image",
        "given": "/wheels/$${x}",
    }
    assert "given" not in target(compiling=Compiling())["contexts"]


def test_how_many_compilers_run_is_no_argument() -> None:
    """It would have everything compiled anew; as a secret it changes no key."""
    found = target(Network(pypi_index=URLS["pypi_index"]), compiling=Compiling(jobs=3))
    assert found["secret"] == [
        "type=env,id=pypi_index,env=IMAGEGEN_SECRET_PYPI_INDEX",
        "type=env,id=jobs,env=IMAGEGEN_SECRET_JOBS",
    ]
    assert found["args"] == {}
    assert Compiling(jobs=3).secrets == {"jobs": "3"}
    assert target(compiling=Compiling(jobs=0))["secret"] == []


def test_a_wheel_is_the_files_of_one_stage_and_no_image() -> None:
    found = target(compiling=Compiling(wheels=Path("/to/${here}"), shard="2/4"))
    assert found["output"] == ["type=local,dest=/to/$${here}"]
    assert found["target"] == bake.WHEEL_STAGE
    assert found["args"] == {"FLASH_ATTN_SHARD": "2/4"}
    assert "target" not in target()


# --- output ---------------------------------------------------------------------------------------


def test_the_bytes_that_are_stored_are_those_that_are_pushed() -> None:
    found = target()
    (output,) = found["output"]
    options = dict(option.split("=", 1) for option in output.split(","))
    assert options == {
        "type": "image",
        "name": image().ref,
        "compression": "zstd",
        "compression-level": "3",
        "force-compression": "true",
        "oci-mediatypes": "true",
        "unpack": "true",
    }
    assert found["platforms"] == ["linux/amd64"]
    assert found["attest"] == ["type=provenance,disabled=true"]
    assert found["dockerfile"] == f"{DEMO.id}/Dockerfile"


def test_a_builder_elsewhere_sends_the_image_here() -> None:
    (output,) = target(load=True)["output"]
    assert output.startswith(f"type=docker,name={image().ref},")
    assert "unpack" not in output
