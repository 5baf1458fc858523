"""A machine as nvidia-smi tells it: every card, the driver, and what is no answer at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from imagegen.errors import EngineError, UsageError
from imagegen.matrix import nvidia_smi, pick
from imagegen.matrix.pick import Machine
from imagegen.util import process
from tests.support.values import FACTS, RESOLUTION, ROOT

ONE = "NVIDIA GeForce RTX 4090, 570.124.06, 8.9, 24564\n"
TWO = "NVIDIA H100 80GB HBM3, 580.65.06, 9.0, 81559\n" * 2
MIXED = (
    "NVIDIA GeForce RTX 5090, 575.57.08, 12.0, 32607\n"
    "NVIDIA A100-SXM4-80GB, 575.57.08, 8.0, 81920\n"
)
UNKNOWN = "NVIDIA GeForce RTX 6090, 610.43.02, 12.0, 49140\n"


def parsed(text: str) -> Machine:
    return nvidia_smi.parse(text, FACTS)


def names(machine: Machine) -> list[str]:
    return [gpu.name for gpu in machine.gpus]


def refused(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parsed(text)
    assert caught.value.exit_code == 2
    return str(caught.value)


# --- answers --------------------------------------------------------------------------------------


def test_one_card() -> None:
    machine = parsed(ONE)
    assert names(machine) == ["RTX 4090"]
    assert machine.gpus[0] in FACTS.gpu
    assert machine.driver == Version("570.124.06")


def test_two_equal_cards_are_one_kind() -> None:
    machine = parsed(TWO)
    assert names(machine) == ["H100"]
    assert machine.driver == Version("580.65.06")


def test_two_names_of_one_card_are_one_kind() -> None:
    machine = parsed(
        "NVIDIA A100-SXM4-80GB, 580, 8.0, 81920\nNVIDIA A100 80GB PCIe, 580, 8.0, 81920\n"
    )
    assert names(machine) == ["A100"]


def test_on_two_different_cards_every_target_must_run_on_both() -> None:
    machine = parsed(MIXED)
    assert names(machine) == ["RTX 5090", "A100"]
    fits = pick.fitting(RESOLUTION.combinations, machine)
    assert fits
    for fit in fits:
        assert {80, 120} <= set(fit.candidate.kernels)
    for_the_a100 = pick.fitting(
        RESOLUTION.combinations, Machine(gpus=machine.gpus[1:], driver=machine.driver)
    )
    fewer = {fit.candidate.id for fit in fits}
    assert fewer < {fit.candidate.id for fit in for_the_a100}, "the 5090 needs CUDA 12.8"


def test_a_card_that_nothing_runs_on_spoils_the_machine() -> None:
    machine = parsed(ONE + "Tesla T4, 570.124.06, 7.5, 15360\n")
    assert pick.fitting(RESOLUTION.combinations, machine) == []


def test_an_unknown_card_is_taken_by_its_compute_capability() -> None:
    machine = parsed(UNKNOWN)
    (card,) = machine.gpus
    assert card not in FACTS.gpu
    assert (card.name, card.capability, card.memory) == ("NVIDIA GeForce RTX 6090", 120, (48,))
    assert (card.brand, card.host) == ("geforce", "x86_64")
    assert "nvidia-smi" in card.source
    assert machine.driver == Version("610.43.02")
    best = pick.pick(RESOLUTION.combinations, machine).best.candidate
    assert 120 in best.kernels


def test_an_unknown_card_of_the_data_centre_is_no_geforce() -> None:
    (card,) = parsed("NVIDIA X500, 610.43.02, 10.3, 294912\n").gpus
    assert (card.brand, card.capability, card.memory) == ("tesla", 103, (288,))


def test_two_unknown_cards_are_two() -> None:
    machine = parsed(UNKNOWN + "NVIDIA X500, 610.43.02, 10.3, 294912\n" + UNKNOWN)
    assert names(machine) == ["NVIDIA GeForce RTX 6090", "NVIDIA X500"]


def test_a_name_that_only_ends_like_a_known_one_is_unknown() -> None:
    """People may type 4090; nvidia-smi never shortens."""
    for name in ("NVIDIA X", "NVIDIA RTX"):
        assert names(parsed(f"{name}, 610.43.02, 12.0, 49140\n")) == [name]


def test_the_oldest_driver_counts() -> None:
    """One driver serves a machine; should it ever tell two, the answer must hold for both."""
    rows = ["NVIDIA H100, 580.65.06, 9.0, 81559", "NVIDIA H200, 575.57.08, 9.0, 143771"]
    for order in (rows, rows[::-1]):
        assert parsed("\n".join(order)).driver == Version("575.57.08")


def test_the_driver_of_610_is_read() -> None:
    assert parsed("NVIDIA B200, 610.43.02, 10.0, 183359\n") == Machine(
        gpus=tuple(gpu for gpu in FACTS.gpu if gpu.name == "B200"), driver=Version("610.43.02")
    )


def test_a_known_card_needs_no_memory() -> None:
    """GB10 shares the machine's, and nvidia-smi says so."""
    assert names(parsed("NVIDIA GB10, 580.95.05, 12.1, [N/A]\n")) == ["GB10"]


def test_blank_lines_say_nothing() -> None:
    assert parsed(f"\n{ONE}  \n\n") == parsed(ONE)


def test_an_unknown_card_may_hide_its_memory() -> None:
    (card,) = parsed("NVIDIA X500, 610.43.02, 10.3, [N/A]\n").gpus
    assert card.memory == ()


# --- no answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "No devices were found\n",
        "garbage\n",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
        "NVIDIA H100, 580.65.06\n",
        "NVIDIA H100, [N/A], 9.0, 81559\n",
        "NVIDIA H100, new, 9.0, 81559\n",
        "NVIDIA Unknown, 580.65.06, [N/A], 81559\n",
        "NVIDIA Unknown, 580.65.06, nine, 81559\n",
        f"{ONE}more, than, four, fields, here\n",
        "|=====================|\n",
    ],
)
def test_what_is_no_answer_is_shown(text: str) -> None:
    message = refused(text)
    assert message.startswith("nvidia-smi said ")
    assert text.splitlines()[-1].split(",")[0] in message


def test_no_line_is_no_card() -> None:
    assert refused("") == "nvidia-smi names no card"


def test_what_is_asked_is_the_query_and_not_the_banner(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def run(*argv: str, **options: object) -> str:
        asked.append(argv)
        return ONE

    monkeypatch.setattr(process, "run", run)
    assert nvidia_smi.read(FACTS) == parsed(ONE)
    assert asked == [
        (
            "nvidia-smi",
            "--query-gpu=name,driver_version,compute_cap,memory.total",
            "--format=csv,noheader,nounits",
        )
    ]


def test_an_nvidia_smi_that_fails_is_a_matter_of_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*argv: str, **options: object) -> str:
        raise EngineError("nvidia-smi exited 9\nNVIDIA-SMI has failed")

    monkeypatch.setattr(process, "run", run)
    with pytest.raises(UsageError, match="NVIDIA-SMI has failed") as caught:
        nvidia_smi.read(FACTS)
    assert caught.value.hint == "give the card and its driver: --gpu, --driver"


# --- the program ----------------------------------------------------------------------------------


def imagegen(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``imagegen WORDS`` where the only programs are those in ``folder``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("IMAGEGEN_")}
    return subprocess.run(
        [sys.executable, "-m", "imagegen", *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=kept | {"PATH": str(folder)},
    )


def smi(folder: Path, answer: str, status: int = 0) -> Path:
    """A program of that name, which answers the query and fails at any other call."""
    file = folder / "nvidia-smi"
    file.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"query = ['--query-gpu={nvidia_smi.QUERY}', '--format=csv,noheader,nounits']\n"
        f"if sys.argv[1:] != query: sys.exit('asked for ' + repr(sys.argv))\n"
        f"sys.stdout.write({answer!r})\nsys.exit({status})\n"
    )
    file.chmod(0o755)
    return folder


@pytest.mark.process
def test_pick_on_this_machine(tmp_path: Path) -> None:
    done = imagegen(smi(tmp_path, ONE), "pick", "--from-nvidia-smi", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    best = pick.pick(RESOLUTION.combinations, parsed(ONE))
    assert found["id"] == best.best.candidate.id
    assert found["fitting"] == best.fitting
    assert "cuda12" in found["id"]
    text = imagegen(tmp_path, "pick", "--from-nvidia-smi")
    assert text.stdout.splitlines()[0] == found["id"]


@pytest.mark.process
def test_pick_on_a_machine_that_nothing_runs_on(tmp_path: Path) -> None:
    answer = "Tesla V100-SXM2-16GB, 580.65.06, 7.0, 16384\n"
    done = imagegen(smi(tmp_path, answer), "pick", "--from-nvidia-smi")
    assert done.returncode == 4
    start = "error: no target works on V100 with driver 580.65.06. The closest, "
    assert done.stderr.startswith(start), "as NVIDIA writes it, and not 580.65.6"


@pytest.mark.process
@pytest.mark.parametrize(
    ("answer", "status"), [("No devices were found\n", 0), ("No devices were found\n", 6), ("", 0)]
)
def test_pick_on_a_machine_without_a_card(tmp_path: Path, answer: str, status: int) -> None:
    done = imagegen(smi(tmp_path, answer, status), "pick", "--from-nvidia-smi")
    assert done.returncode == 2
    assert answer.strip() in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_pick_without_nvidia_smi(tmp_path: Path) -> None:
    done = imagegen(tmp_path, "pick", "--from-nvidia-smi")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --from-nvidia-smi: nvidia-smi is not installed\n"
        "  hint: give the card and its driver: --gpu, --driver\n"
    )
