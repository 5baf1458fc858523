"""Speed of a flash-attn build against torch's own attention and against another build, as ratios.

    PYTHONPATH=SITE python3 attention_speed.py --promise promise.json [--compare OTHER_SITE]

Every build runs in a process of its own, whose flash-attn is the first on its PYTHONPATH. The
contenders take turns, forwards and backwards, and each ratio is the median of the ratios of the
rounds, so that a clock that drifts hits both sides. Times are of CUDA events, causal attention.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

BATCH, HEADS, LENGTH = 4, 16, 4096
KV_HEADS = (16, 4)
ROUNDS, REPEATS, WARM_UP = 9, 10, 3
DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
# Without MATH, which keeps every score in memory and is no rival.
BACKENDS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION")
ALIKE = 0.05  # a contender whose output differs by more did other work


@dataclass(frozen=True)
class Case:
    """What is timed."""

    dim: int
    dtype: str
    kv_heads: int
    backward: bool

    def __str__(self) -> str:
        what = "forward+backward" if self.backward else "forward"
        return f"{self.dtype} {self.dim:>3}  {HEADS}/{self.kv_heads:<2} heads  {what:<16}"


@cache
def inputs(dim: int, dtype: str, kv_heads: int) -> tuple[Any, ...]:
    """q, k, v and the gradient of the output, on the GPU, as (batch, length, heads, dimension)."""
    import torch

    torch.manual_seed(0)
    kind = {"device": "cuda", "dtype": getattr(torch, DTYPES[dtype])}
    q, grad = (torch.randn(BATCH, LENGTH, HEADS, dim, **kind) for _ in range(2))
    k, v = (torch.randn(BATCH, LENGTH, kv_heads, dim, **kind) for _ in range(2))
    return (*(x.requires_grad_() for x in (q, k, v)), grad)


def attend(contender: str, case: Case) -> Any:
    """The output of one contender.

    Raises:
        RuntimeError: it has no kernel for that.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812

    q, k, v, _ = inputs(case.dim, case.dtype, case.kv_heads)
    if contender == "flash-attn":
        from flash_attn import flash_attn_func

        return flash_attn_func(q, k, v, causal=True)
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backend = getattr(SDPBackend, contender, None)
    if backend is None:
        raise RuntimeError(f"torch {torch.__version__} has no {contender}")
    shared = {"enable_gqa": True} if case.kv_heads != HEADS else {}
    swapped = (x.transpose(1, 2) for x in (q, k, v))
    with sdpa_kernel(backend):
        out = F.scaled_dot_product_attention(*swapped, is_causal=True, **shared)
    return out.transpose(1, 2)


def step(contender: str, case: Case) -> None:
    """What is timed once."""
    import torch

    if not case.backward:
        with torch.no_grad():
            attend(contender, case)
        return
    *leaves, grad = inputs(case.dim, case.dtype, case.kv_heads)
    torch.autograd.grad(attend(contender, case), leaves, grad)


def timed(contender: str, case: Case) -> float:
    """The median of the milliseconds that the steps take, after a warm-up."""
    import torch

    for _ in range(WARM_UP):
        step(contender, case)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(2 * REPEATS)]
    for start, end in zip(marks[::2], marks[1::2], strict=True):
        start.record()
        step(contender, case)
        end.record()
    torch.cuda.synchronize()
    pairs = zip(marks[::2], marks[1::2], strict=True)
    return float(statistics.median(start.elapsed_time(end) for start, end in pairs))


def difference(contender: str, case: Case) -> float:
    """The largest difference of its output from flash-attn's."""
    import torch

    with torch.no_grad():
        mine, other = (attend(name, case).float() for name in ("flash-attn", contender))
        return float((mine - other).abs().max().item())


def serve() -> None:
    """Answer one JSON line for each on standard input: a time, a difference, or an error."""
    import torch  # before the extension, which needs its libraries

    library = importlib.import_module("flash_attn_2_cuda").__file__
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    about = {"library": library, "torch": torch.__version__}
    print(json.dumps(about | {"gpu": torch.cuda.get_device_name()}), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        function = {"time": timed, "difference": difference}[asked["what"]]
        try:
            answer: dict[str, object] = {
                "value": function(asked["contender"], Case(**asked["case"]))
            }
        except (RuntimeError, TypeError) as error:  # TypeError: an option that torch has not yet
            answer = {"error": (str(error).splitlines() or ["RuntimeError"])[0][:160]}
        print(json.dumps(answer), file=out, flush=True)


class Worker:
    """A process with one flash-attn build."""

    def __init__(self, site: Path | None = None) -> None:
        paths = [*([os.fspath(site)] if site else []), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        argv = [sys.executable, __file__, "--serve"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.about = self._answer()
        if site and not Path(self.about["library"]).resolve().is_relative_to(site):
            raise SystemExit(f"expected flash-attn from {site}, found {self.about['library']}")

    def ask(self, what: str, contender: str, case: Case) -> dict[str, Any]:
        """The answer to one question, {"value": …} or {"error": …}."""
        assert self.process.stdin
        question = {"what": what, "contender": contender, "case": asdict(case)}
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with exit status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def measure(workers: dict[str, Worker], case: Case) -> dict[str, Any]:
    """Times and ratios of every contender, or why it has none."""
    questions = {
        f"{name} flash-attn" if name else "flash-attn": partial(worker.ask, contender="flash-attn")
        for name, worker in workers.items()
    }
    questions |= {name: partial(workers[""].ask, contender=name) for name in BACKENDS}
    excused: dict[str, str] = {}
    for name, ask in questions.items():
        answer = ask("difference", case=case)
        if "error" in answer:
            excused[name] = answer["error"]
        elif not answer["value"] < ALIKE:
            raise SystemExit(f"{case}: {name} differs from flash-attn by {answer['value']}")
    if "flash-attn" in excused:
        raise SystemExit(f"{case}: promised, yet {excused['flash-attn']}")
    names = [name for name in questions if name not in excused]
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(ROUNDS):
        for name in names if turn % 2 else reversed(names):
            if name not in excused:
                answer = questions[name]("time", case=case)
                excused |= {name: answer["error"]} if "error" in answer else {}
                times[name] += [answer["value"]] if "value" in answer else []
    times = {name: rounds for name, rounds in times.items() if name not in excused}
    mine = times["flash-attn"]
    ratios = {
        name: statistics.median(a / b for a, b in zip(mine, rounds, strict=True))
        for name, rounds in times.items()
    }
    medians = {name: statistics.median(rounds) for name, rounds in times.items()}
    return asdict(case) | {"ms": medians, "ratio": ratios, "without": excused}


def main() -> None:
    """Read the command line, time every promised kernel, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--promise", type=Path, help="what the build holds, as smoke.py reads it")
    parser.add_argument("--compare", type=Path, metavar="SITE", help="where another build lies")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure goes there")
    given = parser.parse_args()
    if given.serve:
        return serve()
    if not given.promise:
        parser.error("--promise is needed")
    held = json.loads(given.promise.read_text())["flash_attn"]
    workers = {"": Worker()}
    if given.compare:
        workers["other"] = Worker(given.compare.resolve())
    print(json.dumps({name or "this": worker.about for name, worker in workers.items()}))
    print(f"batch {BATCH}, length {LENGTH}, causal; time of flash-attn over that of the contender")
    found = []
    for dim in held["head_dims"]:
        for dtype in held["dtypes"]:
            for kv_heads in KV_HEADS:
                for backward in (False, True)[: 1 + ("backward" in held["features"])]:
                    case = Case(dim, dtype, kv_heads, backward)
                    found.append(measure(workers, case))
                    show(case, found[-1])
    if given.json:
        about = {name or "this": worker.about for name, worker in workers.items()}
        given.json.write_text(json.dumps({"builds": about, "cases": found}, indent=1) + "\n")
    return None


def show(case: Case, row: dict[str, Any]) -> None:
    """Print a case in one line."""
    words = [f"{row['ms']['flash-attn']:8.3f} ms"]
    words += [f"{name} {value:.3f}" for name, value in row["ratio"].items() if name != "flash-attn"]
    words += [f"{name}: none" for name in row["without"]]
    print(f"{case} {'  '.join(words)}", flush=True)


if __name__ == "__main__":
    main()
