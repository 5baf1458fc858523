"""Which kernels a wheel holds, what they are called, and what compiling them costs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import product

HEAD_DIMS = (32, 64, 96, 128, 192, 256)
DTYPES = {"fp16": "cutlass::half_t", "bf16": "cutlass::bfloat16_t"}
FEATURES = {
    "dropout": "FLASHATTENTION_DISABLE_DROPOUT",
    "alibi": "FLASHATTENTION_DISABLE_ALIBI",
    "softcap": "FLASHATTENTION_DISABLE_SOFTCAP",
    "local": "FLASHATTENTION_DISABLE_LOCAL",
    "uneven_k": "FLASHATTENTION_DISABLE_UNEVEN_K",
    "backward": "FLASHATTENTION_DISABLE_BACKWARD",
}
KINDS = ("fwd", "fwd_split", "bwd")
PRESETS: Mapping[str, Mapping[str, tuple[int, ...] | tuple[str, ...]]] = {
    # Every kernel of upstream's.
    "full": {},
    # Llama, Mistral, Qwen and their like: head dimension 128, trained without dropout. Their
    # sliding windows are "local", which doubles the cost: add it where it is needed.
    "llama": {"head_dims": (128,), "features": ("backward",)},
    # GPT-2, BERT and their like: head dimension 64, and attention dropout 0.1 by default.
    "gpt2": {"head_dims": (64,), "features": ("dropout", "backward")},
    # Every model, forward only.
    "inference": {"features": ("alibi", "softcap", "local", "uneven_k")},
}
PART = re.compile(r"([1-9][0-9]*)/([1-9][0-9]*)")
KERNEL = re.compile(r"flash_(fwd_split|fwd|bwd)_hdim(\d+)_(fp16|bf16)(_causal)?_sm80\.cu$")
LOCAL = re.compile(r"cu(\d+)torch(\d+\.\d+)cxx11abi(true|false)((?:\.[a-z0-9]+)*)")


@dataclass(frozen=True)
class Selection:
    """Which kernels a wheel holds.  ``archs`` are compute capabilities times ten: 80 is 8.0."""

    archs: tuple[int, ...]
    head_dims: tuple[int, ...] = HEAD_DIMS
    dtypes: tuple[str, ...] = tuple(DTYPES)
    features: tuple[str, ...] = tuple(FEATURES)

    def __post_init__(self) -> None:
        """Refuse what upstream has no kernels for.

        Raises:
            ValueError: an unknown value, or an axis without any.
        """
        for name, known in (("head_dims", HEAD_DIMS), ("dtypes", DTYPES), ("features", FEATURES)):
            unknown = set(getattr(self, name)) - set(known)
            if unknown:
                raise ValueError(f"{name}: {sorted(unknown)} not in {sorted(known)}")
        for field in fields(self):
            if field.name != "features" and not getattr(self, field.name):
                raise ValueError(f"{field.name}: empty")

    def has(self, source: str) -> bool:
        """Whether the kernel file ``source`` is selected; files that hold no kernel always are."""
        kernel = KERNEL.search(source)
        if kernel is None:
            return True
        kind, head_dim, dtype, _ = kernel.groups()
        return (
            int(head_dim) in self.head_dims
            and dtype in self.dtypes
            and (kind != "bwd" or "backward" in self.features)
        )

    @property
    def kernels(self) -> tuple[str, ...]:
        """The selected kernel files."""
        return tuple(filter(self.has, KERNELS))

    @property
    def macros(self) -> list[str]:
        """The ``-D`` flags of everything left out, for nvcc and for the C++ compiler alike."""
        return [f"-D{macro}" for name, macro in FEATURES.items() if name not in self.features]

    @property
    def held(self) -> str:
        """What is in it, in words."""
        return (
            f"head dimensions {', '.join(map(str, self.head_dims))}; "
            f"types {', '.join(self.dtypes)}; features {', '.join(self.features) or 'none'}"
        )

    def local_version(self, torch_minor: str, cuda: str, abi: bool) -> str:
        """A PEP 440 local version that says what is inside: ``cu130torch2.11cxx11abitrue.sm80``."""
        words = [f"cu{cuda.replace('.', '')}torch{torch_minor}cxx11abi{str(abi).lower()}"]
        words += [f"sm{arch}" for arch in self.archs]
        if self.head_dims != HEAD_DIMS:
            words += [f"hdim{dim}" for dim in self.head_dims]
        if self.dtypes != tuple(DTYPES):
            words += self.dtypes
        if self.features != tuple(FEATURES):
            words += [
                f"no{name.replace('_', '')}" for name in FEATURES if name not in self.features
            ]
        return ".".join(words)


@dataclass(frozen=True)
class Part:
    """One of the shards that a selection is cut into: the ``number``-th of ``count``, from 1 on."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """The part that ``2/4`` names: the second of four.

        Raises:
            ValueError: it names none.
        """
        found = PART.fullmatch(text)
        part = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= part.number <= part.count:
            raise ValueError(f"{text!r} is not a shard such as 2/4, the second of four")
        return part

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class Label:
    """What a local version says: the torch minor, its CUDA as in ``cu130``, ABI and kernels."""

    torch: str
    cuda: str
    abi: bool
    selection: Selection

    @classmethod
    def read(cls, local: str) -> Label:
        """The meaning of a local version that ``Selection.local_version`` wrote.

        Raises:
            ValueError: it was written by somebody else.
        """
        found = LOCAL.fullmatch(local)
        if not found:
            raise ValueError(f"{local!r} is not a local version of this recipe")
        words = found[4].split(".")[1:]
        selection = Selection(
            archs=_numbers(words, "sm"),
            head_dims=_numbers(words, "hdim") or HEAD_DIMS,
            dtypes=tuple(word for word in DTYPES if word in words) or tuple(DTYPES),
            features=tuple(f for f in FEATURES if f"no{f.replace('_', '')}" not in words),
        )
        label = cls(found[2], f"cu{found[1]}", found[3] == "true", selection)
        if selection.local_version(label.torch, found[1], label.abi) != local:
            raise ValueError(f"{local!r} is not a local version of this recipe")
        return label


def _numbers(words: Iterable[str], prefix: str) -> tuple[int, ...]:
    return tuple(int(word.removeprefix(prefix)) for word in words if word.startswith(prefix))


def kernel(kind: str, head_dim: int, dtype: str, causal: bool) -> str:
    """A kernel file's name; upstream calls all of them sm80, whatever they are compiled for."""
    return f"flash_{kind}_hdim{head_dim}_{dtype}{'_causal' * causal}_sm80.cu"


KERNELS = tuple(kernel(*words) for words in product(KINDS, HEAD_DIMS, DTYPES, (False, True)))


LEAN = {"fwd": 50.0, "fwd_split": 63.0, "bwd": 70.0}
"""CPU-seconds of a kernel file of head dimension 128 without features for one architecture.

Measured with CUDA 13.0 on two shared cores; 67 to 83 on an H200's machine."""

TIMES = {
    "fwd": {"dropout": 1.6, "alibi": 1.15, "softcap": 1.2, "uneven_k": 1.1, "local": 1.5},
    "fwd_split": {"alibi": 1.5, "softcap": 1.5, "uneven_k": 1.3, "local": 1.8},
    "bwd": {"dropout": 1.4, "alibi": 1.3, "softcap": 1.3, "uneven_k": 1.1, "local": 1.4},
}
"""How much longer a file takes with each feature.

Fitted to files with all of them, with all but dropout, and with dropout alone, on that machine.
Windows are only in the files that are not causal."""

SIZES = {32: 1.0, 64: 1.1, 96: 1.0, 128: 1.0, 192: 1.2, 256: 1.4}
"""64 and 128 were measured, the others are a guess."""

LINKING = 45.0
"""Seconds that flash_api.cpp and the link take after the kernels, on one core."""


def weight(source: str, selection: Selection) -> float:
    """About how many CPU-seconds ``source`` takes for one architecture."""
    found = KERNEL.search(source)
    assert found, source
    kind, causal = found[1], bool(found[4])
    seconds = LEAN[kind] * SIZES[int(found[2])]
    for feature, times in TIMES[kind].items():
        if feature in selection.features and not (feature == "local" and causal):
            seconds *= times
    return seconds


def foretold(selection: Selection, slots: int, shards: int = 1) -> tuple[float, float]:
    """CPU-hours of one of ``shards`` parts, and seconds that it takes with ``slots`` threads of
    nvcc: no less than the longest file takes, however many threads there are.
    """
    each = [weight(source, selection) for source in selection.kernels]
    total = sum(each) * len(selection.archs) / shards
    return total / 3600, max(total / slots, *each) + LINKING


def shards(selection: Selection, count: int) -> tuple[tuple[str, ...], ...]:
    """The selected kernel files in ``count`` lists that take about as long as one another.

    Raises:
        ValueError: fewer kernel files than lists, or no list.
    """
    if not 1 <= count <= len(selection.kernels):
        raise ValueError(f"{len(selection.kernels)} kernel files cannot make {count} shards")
    lists: list[list[str]] = [[] for _ in range(count)]
    load = [0.0] * count
    for source in heaviest_first(selection.kernels, selection):
        least = load.index(min(load))
        lists[least].append(source)
        load[least] += weight(source, selection)
    return tuple(tuple(part) for part in lists)


def heaviest_first(sources: Iterable[str], selection: Selection) -> list[str]:
    """In the order in which several workers end soonest."""
    return sorted(sources, key=lambda source: (-weight(source, selection), source))
