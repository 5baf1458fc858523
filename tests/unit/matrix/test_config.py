"""A fault in matrix.toml: its file, its place, the nearest valid word, and all of them at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagegen.compat.sources import Pinned, Policy
from imagegen.errors import FactsError
from imagegen.image.wheel.flash_attn_wheel.selection import PRESETS
from imagegen.matrix import config
from imagegen.matrix.project import Project
from tests.support.values import FACTS, FILE, RESOLUTION

TEXT = FILE.read_text()
GOOD = """
packages = ["transformers"]
[publish]
repository = "me/finetune"
[flash_attn.full]
version = "2.8.3.post2"
[profile.slim]
kind = "slim"
flash_attn = "full"
about = "small"
[[build]]
os = ["ubuntu24.04"]
cuda = ["13.0"]
torch = ["2.11"]
profile = ["slim"]
[[exclude]]
reason = "nobody asked for it"
torch = ["2.10"]
"""


def load(folder: Path, text: str) -> Project:
    """The project of a matrix, whatever it resolves to."""
    file = folder / "matrix.toml"
    file.write_text(text)
    matrix, facts = config.load(file, FACTS)
    return Project(folder=folder, matrix=matrix, facts=facts, resolution=RESOLUTION)


def faults(folder: Path, text: str) -> list[str]:
    """The message's lines without the file's name, which every one of them must have."""
    with pytest.raises(FactsError) as caught:
        load(folder, text)
    assert caught.value.exit_code == 3
    lines = str(caught.value).splitlines()
    start = f"{folder / 'matrix.toml'}: "
    assert all(line.startswith(start) for line in lines)
    return [line.removeprefix(start) for line in lines]


def test_the_good_one_loads(tmp_path: Path) -> None:
    project = load(tmp_path, GOOD)
    assert project.folder == tmp_path
    assert project.locks == tmp_path / "locks"
    assert project.matrix.flash_attn["full"].head_dims == (32, 64, 96, 128, 192, 256)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        # keys
        ("packages", "pakages", "unknown key pakages; did you mean 'packages'?"),
        ("repository", "repo", "unknown key publish.repo; did you mean 'repository'?"),
        ("kind", "knd", "unknown key profile.slim.knd; did you mean 'kind'?"),
        (
            "version =",
            "head_dim = [64]\nversion =",
            "unknown key flash_attn.full.head_dim; did you mean 'head_dims'?",
        ),
        ("os =", "oss = []\nos =", "unknown key build.0.oss; did you mean 'os'?"),
        ("reason", "raeson", "unknown key exclude.0.raeson; did you mean 'reason'?"),
        ("[[exclude]]", "[[excludes]]", "unknown key excludes; did you mean 'exclude'?"),
        # values
        (
            '"ubuntu24.04"',
            '"ubunto24.04"',
            "build.0.os: unknown value 'ubunto24.04'; did you mean 'ubuntu24.04'?",
        ),
        ('"13.0"', '"12.7"', "build.0.cuda: unknown value '12.7'; did you mean '12.6"),
        ('"2.11"', '"2.111"', "build.0.torch: unknown value '2.111'; did you mean '2.15'?"),
        (
            'profile = ["slim"]',
            'profile = ["slimm"]',
            "build.0.profile: unknown value 'slimm'; did you mean 'slim'?",
        ),
        ('"2.10"', '"2.3"', "exclude.0.torch: unknown value '2.3'; did you mean '2.4'?"),
        (
            'flash_attn = "full"',
            'flash_attn = "ful"',
            "profile.slim.flash_attn: unknown value 'ful'; did you mean 'full'?",
        ),
        (
            "2.8.3.post2",
            "2.8.4",
            "flash_attn.full.version: unknown value '2.8.4'; did you mean '2.8.3.post2'?",
        ),
        # versions
        ('"13.0"', '"13.x"', "build.0.cuda.0: '13.x' is not a version"),
        ('"13.0"', "13.0", "build.0.cuda.0: 13.0 is not a version in quotes"),
        (
            '"13.0"',
            '"13.0.9"',
            "build.0.cuda: unknown value '13.0.9'; did you mean '13.0.3' or '13.1'?",
        ),
        # the rest
        (
            'about = "small"',
            'about = "small"\nbudget_gb = 0',
            "profile.slim.budget_gb: Input should be greater than 0",
        ),
        (
            'about = "small"',
            'about = "small"\nbudget_gb = inf',
            "profile.slim.budget_gb: Input should be a finite number",
        ),
        ('reason = "nobody asked for it"', "", "exclude.0.reason: Field required"),
        (
            "nobody asked for it",
            "no",
            "exclude.0.reason: String should have at least 10 characters",
        ),
        (
            'kind = "slim"',
            'kind = "develop"',
            "profile.slim.kind: unknown value 'develop'; did you mean 'devel'?",
        ),
        (
            "version =",
            "head_dims = [64, 129]\nversion =",
            "flash_attn.full.head_dims.1: unknown value 129; did you mean '1",
        ),
        (
            "version =",
            'dtypes = ["bf61"]\nversion =',
            "flash_attn.full.dtypes.0: unknown value 'bf61'; did you mean 'bf16'?",
        ),
        (
            "version =",
            'features = ["dropuot"]\nversion =',
            "flash_attn.full.features.0: unknown value 'dropuot'; did you mean 'dropout'?",
        ),
        (
            "version =",
            "archs = [80, 81]\nversion =",
            "flash_attn.full.archs: unknown value '81'; did you mean '80' or '90'?",
        ),
        (
            "version =",
            "archs = [80, 90, 80]\nversion =",
            "flash_attn.full.archs: one of them is named twice",
        ),
        (
            "version =",
            'generation = 4\narchs = [90]\nfeatures = ["alibi"]\nversion =',
            "flash_attn.full: kernels are selected of flash-attn 2 only, and generation 4 is "
            "installed whole: leave out archs, features",
        ),
        (
            "version =",
            "generation = 3\nversion =",
            "flash_attn.full.version: unknown value '2.8.3.post2'; did you mean '3.0.0'?",
        ),
        (
            'version = "2.8.3.post2"',
            'version = "4.0.0b36"',
            "flash_attn.full.version: unknown value '4.0.0b36'",
        ),
        (
            "version =",
            "generation = 5\nversion =",
            "flash_attn.full.generation: unknown value 5",
        ),
        (
            "[flash_attn.full]",
            "[flash_attn.none]",
            "flash_attn.none: the word of a profile without flash-attn, and no table's name",
        ),
        (
            "version =",
            'preset = "lama"\nversion =',
            "flash_attn.full.preset: unknown value 'lama'; did you mean 'llama'?",
        ),
        (
            "version =",
            'source = "forbiden"\nversion =',
            "flash_attn.full.source: unknown value 'forbiden'; did you mean 'forbidden'?",
        ),
        (
            "version =",
            'third_party = "yes, please"\nversion =',
            "flash_attn.full.third_party: Input should be a valid boolean",
        ),
        (
            "version =",
            "head_dims = []\nversion =",
            "flash_attn.full.head_dims: Tuple should have at least 1 item",
        ),
        (
            '"transformers"',
            '"transformers", "peft >> 1"',
            "packages: 'peft >> 1' is not a requirement such as 'peft' or 'peft>=0.17'",
        ),
        ('["transformers"]', "[]", "packages: Tuple should have at least 1 item"),
        ('os = ["ubuntu24.04"]', "os = []", "build.0.os: Tuple should have at least 1 item"),
        ('"me/finetune"', '"me/finetune:latest"', "publish.repository: String should match"),
        ('"me/finetune"', '"me/Finetune"', "publish.repository: String should match"),
        (
            '"me/finetune"',
            '"https://registry.example/x"',
            "publish.repository: String should match",
        ),
    ],
)
def test_a_fault_has_its_place_and_what_was_near(
    tmp_path: Path, old: str, new: str, fault: str
) -> None:
    assert old in GOOD
    found = faults(tmp_path, GOOD.replace(old, new, 1))
    assert any(line.startswith(fault) for line in found), found


def test_every_fault_of_form_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("kind", "knd").replace('"13.0"', '"13.x"').replace("reason", "why")
    text = text.replace("[publish]", "[publish]\ntag = 1").replace('"2.11"', "2.11")
    found = faults(tmp_path, text)
    wanted = [
        ("unknown key publish.tag", "profile.slim.kind: Field required"),
        ("unknown key profile.slim.knd", "build.0.cuda.0: '13.x' is not a version"),
        ("build.0.torch.0: 2.11 is not a version in quotes", "exclude.0.reason: Field required"),
        ("unknown key exclude.0.why",),
    ]
    for start in (start for row in wanted for start in row):
        assert sum(line.startswith(start) for line in found) == 1, (start, found)


def test_every_name_that_means_nothing_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('flash_attn = "full"', 'flash_attn = "fool"')
    text = text.replace("ubuntu24.04", "ubuntu24.4").replace('"13.0"', '"13.9", "12.6.9"')
    text = text.replace('"2.10"', '"2.99"').replace("post2", "post9")
    assert [line.partition(": ")[0] for line in faults(tmp_path, text)] == [
        "profile.slim.flash_attn",
        "flash_attn.full.version",
        "build.0.os",
        "build.0.cuda",
        "build.0.cuda",
        "exclude.0.torch",
    ]


def test_faults_of_form_and_names_without_meaning_are_told_together(tmp_path: Path) -> None:
    text = GOOD.replace("about", "abuot").replace("ubuntu24.04", "ubunto24.04")
    text = text.replace('flash_attn = "full"', 'flash_attn = "fool"').replace('"2.10"', '"2.x"')
    found = "\n".join(faults(tmp_path, text))
    for fault in ("abuot", "ubunto24.04", "'fool'", "'2.x' is not a version"):
        assert fault in found


def test_architectures_packages_and_words_are_told_together(tmp_path: Path) -> None:
    text = GOOD.replace("version =", 'archs = [81, 80, 80]\ndtypes = ["fp61"]\nversion =')
    text = text.replace('"transformers"', '"trans formers"').replace('kind = "slim"', "kind = 1")
    assert sorted(line.partition(": ")[0] for line in faults(tmp_path, text)) == [
        "flash_attn.full.archs",
        "flash_attn.full.archs",
        "flash_attn.full.dtypes.0",
        "packages",
        "profile.slim.kind",
    ]


@pytest.mark.parametrize("value", ["80", '"80"', "{}", "[[80]]", "[{}]", "[80.5]"])
def test_architectures_of_another_form_are_a_fault_and_no_crash(tmp_path: Path, value: str) -> None:
    text = GOOD.replace("version =", f"archs = {value}\nversion =")
    assert any(line.startswith("flash_attn.full.archs") for line in faults(tmp_path, text))


def test_good_requirements_are_kept_as_they_are(tmp_path: Path) -> None:
    text = GOOD.replace('["transformers"]', '["peft>=0.17", "trl[vllm]~=0.9"]')
    assert load(tmp_path, text).matrix.packages == ("peft>=0.17", "trl[vllm]~=0.9")


def test_a_file_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FactsError, match="No such file") as caught:
        config.load(tmp_path / "matrix.toml", FACTS)
    assert "--matrix FILE" in caught.value.hint


def test_a_file_that_is_not_utf_8_says_where(tmp_path: Path) -> None:
    file = tmp_path / "matrix.toml"
    file.write_bytes(b"# caf\xe9\n" + GOOD.encode())
    with pytest.raises(FactsError) as caught:
        config.load(file, FACTS)
    assert str(caught.value) == f"{file}: not UTF-8 at byte 5"


def test_a_file_that_is_not_toml_says_where(tmp_path: Path) -> None:
    assert "line 1" in faults(tmp_path, "packages = x")[0]


@pytest.mark.parametrize("name", ["Slim", "my profile", "slim!", "a/b", "x" * 100, "ü"])
def test_a_profile_has_a_name_that_a_tag_can_hold(tmp_path: Path, name: str) -> None:
    text = GOOD.replace("profile.slim", f'profile."{name}"').replace('["slim"]', f'["{name}"]')
    assert any(f"profile.{name}" in line for line in faults(tmp_path, text))


def test_the_committed_matrix_says_why_it_leaves_something_out() -> None:
    matrix, _ = config.load(FILE, FACTS)
    assert all(row.reason for row in matrix.exclude)
    assert "[[exclude]]" in TEXT


# --- versions that nobody knows yet ---------------------------------------------------------------


def test_an_exact_version_may_be_named(tmp_path: Path) -> None:
    text = GOOD.replace('"13.0"', '"13.0.2"').replace('"2.11"', '"2.11.0"')
    (block,) = load(tmp_path, text).matrix.build
    assert (str(block.cuda[0]), str(block.torch[0])) == ("13.0.2", "2.11.0")


def test_what_is_unknown_is_assumed_where_that_is_allowed(tmp_path: Path) -> None:
    text = GOOD.replace('"2.11"', '"2.11", "2.99"').replace('"13.0"', '"13.0", "13.99"')
    found = faults(tmp_path, text)
    assert [line.partition(": ")[0] for line in found] == ["build.0.cuda", "build.0.torch"]
    _, facts = config.load(tmp_path / "matrix.toml", FACTS, allow_unknown=True)
    assumed = {
        str(row.version): row.assumed
        for table in (facts.torch, facts.cuda, facts.flash_attn)
        for row in table
        if row.assumed
    }
    assert assumed == {"2.99": "2.15.0", "13.99": "13.5.0"}
    assert not any(row.assumed for row in FACTS.torch), "the facts themselves stay as they are"


@pytest.mark.parametrize("allowed", [False, True])
def test_a_flash_attn_that_nobody_knows_is_never_assumed(tmp_path: Path, allowed: bool) -> None:
    """Its source is checked by a hash, which no other release can tell."""
    file = tmp_path / "matrix.toml"
    file.write_text(GOOD.replace("2.8.3.post2", "2.9.9"))
    with pytest.raises(FactsError) as caught:
        config.load(file, FACTS, allow_unknown=allowed)
    assert str(caught.value) == (
        f"{file}: flash_attn.full.version: unknown value '2.9.9'; did you mean '2.8.3.post2'? "
        "(a release of your own needs its row and hash: --facts)"
    )


def test_a_torch_of_another_major_is_refused_also_where_unknown_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "matrix.toml"
    file.write_text(GOOD.replace('"2.11"', '"3.0"'))
    with pytest.raises(FactsError, match=r"build\.0\.torch: unknown value '3\.0'"):
        config.load(file, FACTS, allow_unknown=True)


def test_what_is_known_is_not_assumed(tmp_path: Path) -> None:
    load(tmp_path, GOOD)
    _, facts = config.load(tmp_path / "matrix.toml", FACTS, allow_unknown=True)
    assert facts == FACTS


def test_no_distribution_and_no_name_is_assumed(tmp_path: Path) -> None:
    text = GOOD.replace("ubuntu24.04", "ubuntu28.04").replace('["slim"]', '["slum"]')
    with pytest.raises(FactsError) as caught:
        load(tmp_path, text)
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        *("build.0.os", "build.0.profile"),
    ]
    with pytest.raises(FactsError) as again:
        config.load(tmp_path / "matrix.toml", FACTS, allow_unknown=True)
    assert str(again.value) == str(caught.value)


@pytest.mark.parametrize("word", ["2.x", "1.0", ""])
def test_what_cannot_be_assumed_hides_no_other_fault(tmp_path: Path, word: str) -> None:
    text = GOOD.replace('"2.11"', f'"{word}"').replace("ubuntu24.04", "ubunto24.04")
    (tmp_path / "matrix.toml").write_text(text)
    with pytest.raises(FactsError) as caught:
        config.load(tmp_path / "matrix.toml", FACTS, allow_unknown=True)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{tmp_path / 'matrix.toml'}: ") for line in lines), lines
    assert any("build.0.torch" in line for line in lines)
    assert any("ubunto24.04" in line for line in lines)


# --- flash-attn: presets, policy, and what was published ------------------------------------------


def kernels(folder: Path, lines: str) -> config.Kernels:
    return load(folder, GOOD.replace("version =", f"{lines}\nversion =")).matrix.flash_attn["full"]


def test_a_preset_fills_what_is_left_out(tmp_path: Path) -> None:
    found = kernels(tmp_path, 'preset = "llama"')
    assert (found.head_dims, found.features) == ((128,), ("backward",))
    assert found.dtypes == ("fp16", "bf16")
    assert kernels(tmp_path, 'preset = "full"').features == kernels(tmp_path, "").features
    assert "backward" not in kernels(tmp_path, 'preset = "inference"').features
    for name, its in PRESETS.items():
        chosen = kernels(tmp_path, f'preset = "{name}"')
        assert {key: getattr(chosen, key) for key in its} == its


def test_a_key_of_ones_own_comes_before_the_presets(tmp_path: Path) -> None:
    found = kernels(
        tmp_path, 'preset = "llama"\nhead_dims = [64]\ndtypes = ["bf16"]\nfeatures = []'
    )
    assert (found.head_dims, found.dtypes, found.features) == ((64,), ("bf16",), ())


def test_a_policy_allows_compiling_and_nobody_elses_wheel_by_default(tmp_path: Path) -> None:
    assert kernels(tmp_path, "").policy == Policy(source="allowed", third_party=False)
    found = kernels(tmp_path, 'source = "required"\nthird_party = true').policy
    assert found == Policy(source="required", third_party=True)


@pytest.mark.parametrize(("generation", "version"), [(3, "3.0.0"), (4, "4.0.0b36")])
@pytest.mark.parametrize(
    "line", ['source = "forbidden"', "third_party = false", 'preset = "full"', "head_dims = [64]"]
)
def test_nothing_is_chosen_of_what_is_installed_whole(
    tmp_path: Path, generation: int, version: str, line: str
) -> None:
    text = GOOD.replace("2.8.3.post2", version)
    (fault,) = faults(
        tmp_path, text.replace("version =", f"generation = {generation}\n{line}\nversion =")
    )
    assert f"generation {generation} is installed whole: leave out" in fault
    assert fault.endswith(line.partition(" ")[0])


def test_hashes_of_published_wheels_are_kept_beside_the_locks(tmp_path: Path) -> None:
    project = load(tmp_path, GOOD)
    assert project.pins == {}
    one, two = (Pinned(name=n, url=f"https://x.example/{n}", sha256="0" * 64) for n in "ba")
    project.record([one, two])
    assert project.pins == {"a": two, "b": one}
    assert list(json.loads((project.locks / "wheels.json").read_text())) == ["a", "b"]
    project.record([one])
    assert project.pins == {"b": one}
    assert [file.name for file in project.locks.iterdir()] == ["wheels.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '{"a.whl": []}',
        '{"a.whl": {"url": "https://x.example/a.whl"}}',
        '{"a.whl": {"url": "https://x.example/a.whl", "sha256": "0", "more": 1}}',
    ],
)
def test_a_record_of_wheels_that_is_none_is_a_fault(tmp_path: Path, text: str) -> None:
    project = load(tmp_path, GOOD)
    project.locks.mkdir()
    (project.locks / "wheels.json").write_text(text)
    with pytest.raises(FactsError, match=r"wheels\.json: not a record of wheels: "):
        _ = project.pins
