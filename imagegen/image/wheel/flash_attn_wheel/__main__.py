"""The command line of the recipe."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from . import __doc__ as about
from . import packing, sizing, verify
from .selection import DTYPES, FEATURES, HEAD_DIMS, PRESETS, Part, Selection, shards


def words(kind: type, known: Iterable[object]) -> Callable[[str], tuple[object, ...]]:
    """An argparse type: ``a,b`` into a tuple in the order of ``known``, repeats dropped."""
    order = list(known)

    def parse(text: str) -> tuple[object, ...]:
        found = {kind(word) for word in text.split(",") if word}
        return tuple(sorted(found, key=lambda w: order.index(w) if w in order else len(order)))

    return parse


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    top = argparse.ArgumentParser(prog="flash_attn_wheel", description=(about or "").split("\n")[0])
    commands = top.add_subparsers(dest="command", required=True)
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--archs", type=words(int, range(200)), help="80,90,...")
    chosen.add_argument("--preset", choices=PRESETS, default="full", help="which kernels")
    chosen.add_argument("--head-dims", type=words(int, HEAD_DIMS), help="instead of the preset's")
    chosen.add_argument("--dtypes", type=words(str, DTYPES), help="fp16,bf16")
    chosen.add_argument("--features", type=words(str, FEATURES), help=",".join(FEATURES))

    build = commands.add_parser("build", parents=[chosen], help="compile, link and pack a wheel")
    build.add_argument("sdist", type=Path, help="flash-attn's source distribution")
    build.add_argument("--out", type=Path, default=Path("wheels"), help="where the wheel goes")
    build.add_argument("--work", type=Path, default=Path("build"), help="kept between builds")
    build.add_argument("--jobs", type=int, help="nvcc threads at once; by cores and memory else")
    build.add_argument("--shard", help="2/4: compile the second of four parts only")
    build.add_argument("--given", type=Path, help="a folder with what shards compiled")
    build.add_argument("--no-compile", action="store_true", help="fail where a kernel is missing")

    plan = commands.add_parser("plan", parents=[chosen], help="cut the kernel files into shards")
    plan.add_argument("--shards", type=int, required=True)

    check = commands.add_parser(
        "verify", parents=[chosen], help="check a wheel against its name, or what is asked for"
    )
    check.add_argument("wheel", type=Path)
    check.add_argument("--sha256", default="", help="the hash that it must have")
    check.add_argument("--version", default="", help="the release that it must be")
    check.add_argument("--level", choices=("contents", "kernels", "load"), default="load")
    return top


def selection(given: argparse.Namespace) -> Selection:
    """The kernels that were asked for.

    Raises:
        ValueError: upstream has no such kernels.
    """
    own = {name: getattr(given, name) for name in ("head_dims", "dtypes", "features")}
    chosen = dict(PRESETS[given.preset]) | {k: v for k, v in own.items() if v is not None}
    return Selection(given.archs or (), **chosen)  # type: ignore[arg-type]


def build(given: argparse.Namespace, chosen: Selection) -> dict[str, object]:
    """Build the wheel, or the objects of a shard."""
    start = time.monotonic()
    sources = chosen.kernels
    if given.shard:
        part = Part.parse(given.shard)
        sources = shards(chosen, part.count)[part.number - 1]
    job = packing.Job(
        sdist=given.sdist.absolute(),
        out=given.out.absolute(),
        work=given.work.absolute(),
        selection=chosen,
        slots=given.jobs or sizing.slots(sizing.cores(), sizing.memory()),
        sources=sources,
        given=given.given and given.given.absolute(),
        shard=bool(given.shard),
        compile=not given.no_compile,
    )
    made = packing.build(job)
    seconds = round(time.monotonic() - start, 1)
    if job.shard:
        return {"objects": len(sources), "folder": made[0].parent.name, "seconds": seconds}
    (wheel,) = made
    size = wheel.stat().st_size
    return {"wheel": wheel.name, "bytes": size, "seconds": seconds, **asdict(chosen)}


def main() -> None:
    """Read the command line, do it, and print a JSON line about it."""
    # so that no compiler outlives a build that is told to end, unless nohup says to go on
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    top = parser()
    given = top.parse_args()
    try:
        if given.command == "verify":
            found = verify.wheel(
                given.wheel,
                sha256=given.sha256,
                level=given.level,
                version=given.version,
                wanted=selection(given) if given.archs else None,
            )
        elif given.command == "plan":
            found = {"shards": shards(selection(given), given.shards)}
        else:
            found = build(given, selection(given))
    except ValueError as error:
        top.error(str(error))
    except verify.Wrong as error:
        raise SystemExit(f"{given.wheel.name}: {error}") from error
    except ImportError as error:
        raise SystemExit(f"{sys.executable}: {error}") from error
    except OSError as error:  # a full disk, a file that is not there
        raise SystemExit(f"{given.command}: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("interrupted; compiled kernels are kept for the next try") from None
    print(json.dumps(found))


if __name__ == "__main__":
    main()
