"""C++ that raises: for every kernel that is left out, and in upstream's own refusals."""

from __future__ import annotations

import re
from itertools import product

from .selection import DTYPES, FEATURES, HEAD_DIMS, Selection, kernel

REFUSED = ["softcap", "dropout", "attention", "32", "alibi", "backward", "backward"]
"""The last word of every refusal in upstream's flash_api.cpp."""

HOW = (
    "Build a wheel with {options} that include it (imagegen wheel compile, or the same keys "
    "in matrix.toml), or use an image whose flash-attn preset is 'full'."
)
ENTRY_POINTS = {
    "run_mha_fwd_": ("Flash_fwd_params", "forward", "fwd"),
    "run_mha_fwd_splitkv_dispatch": ("Flash_fwd_params", "split-KV forward", "fwd_split"),
    "run_mha_bwd_": ("Flash_bwd_params", "backward", "bwd"),
}
GUARDS = {
    # Head dimension 256 with dropout needs 144 KB of shared memory in the backward pass. On cards
    # with less (8.6, 8.9, 12.x) upstream launches no kernel and returns what was in the memory.
    "void run_mha_bwd(Flash_bwd_params &params, cudaStream_t stream) {": """
    if (params.d_rounded > 192 && params.p_dropout < 1.f) {
        int device, bytes;
        cudaGetDevice(&device);
        cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
        TORCH_CHECK(bytes >= 144 * 1024, "flash-attn has no backward kernel with dropout for head "
            "dimensions above 192 on this GPU: it has ", bytes / 1024, " KB of shared memory for a "
            "block, 144 are needed. Train with dropout 0, or on a GPU with more (A100, H100).");
    }""",
    # With a block table upstream takes the split-KV kernels, which know no dropout, and ignores it.
    "    CHECK_DEVICE(cu_seqlens_k);\n\n    at::Tensor block_table;\n"
    "    const bool paged_KV = block_table_.has_value();": """
    TORCH_CHECK(!paged_KV || p_dropout == 0.f, "flash-attn has no dropout with a block table: its "
        "kernels for paged keys would ignore it. Call it with dropout_p=0.");""",
}
"""Calls that every build of 2.8 answers wrongly: where to refuse them, and how."""

REFUSAL = re.compile(r'"This flash attention build does not support ([^"\\]+)\."')


def stub(selection: Selection) -> str:
    """The source of every entry point without a kernel: it raises and names what is missing."""
    lines = [
        "// Generated: entry points whose kernels this build leaves out.",
        "#include <c10/util/Exception.h>",
        "#include <cutlass/numeric_types.h>",
        '#include "namespace_config.h"',
        '#include "flash.h"',
        "namespace FLASH_NAMESPACE {",
    ]
    how = HOW.format(options="--head-dims and --dtypes")
    for (function, (params, words, kind)), dim, (dtype, ctype), causal in product(
        ENTRY_POINTS.items(), HEAD_DIMS, DTYPES.items(), (False, True)
    ):
        if selection.has(kernel(kind, dim, dtype, causal)):
            continue
        message = (
            f"this flash-attn build has no {words} kernel for head dimensions up to {dim} in "
            f"{dtype}: it holds {selection.held}. {how}"
        )
        lines += [
            f"template <> void {function}<{ctype}, {dim}, {str(causal).lower()}>"
            f"({params} &, cudaStream_t) {{",
            f'    TORCH_CHECK(false, "{message}");',
            "}",
        ]
    return "\n".join([*lines, "}  // namespace FLASH_NAMESPACE", ""])


def outspoken(flash_api: str, selection: Selection) -> str:
    """``flash_api.cpp`` whose refusals of a feature say what the build holds and how to get more,
    and which refuses what upstream's kernels would answer wrongly.

    Raises:
        SystemExit: it lacks a refusal that is known, or a place for one: nothing shows that this
            source would refuse.
    """
    for anchor, check in GUARDS.items():
        if flash_api.count(anchor) != 1:
            raise SystemExit(f"unknown flash_api.cpp: {flash_api.count(anchor)} times {anchor!r}")
        flash_api = flash_api.replace(anchor, anchor + check)
    refused = [word.rpartition(" ")[2] for word in REFUSAL.findall(flash_api)]
    if sorted(refused) != sorted(REFUSED):
        raise SystemExit(f"unknown flash_api.cpp: it refuses {refused}, expected {REFUSED}")
    if set(selection.features) == set(FEATURES):
        return flash_api
    how = HOW.format(options="--features")
    return REFUSAL.sub(
        rf'"This flash attention build does not support \1: it holds {selection.held}. {how}"',
        flash_api,
    )
