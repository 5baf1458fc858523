"""What a wheel lacks can never answer wrongly: every kernel and feature left out is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given

from imagegen.image.wheel.flash_attn_wheel.selection import DTYPES, FEATURES, KERNELS, Selection
from imagegen.image.wheel.flash_attn_wheel.stub import outspoken, stub
from tests.support.wheel_recipe import FULL, LLAMA, selections

FUNCTION = re.compile(
    r"^template <> void (run_mha_\w+)<(cutlass::\w+), (\d+), (true|false)>"
    r"\((Flash_\w+_params) &, cudaStream_t\) \{$",
    re.MULTILINE,
)
NAMES = {
    "run_mha_fwd_": ("fwd", "Flash_fwd_params"),
    "run_mha_fwd_splitkv_dispatch": ("fwd_split", "Flash_fwd_params"),
    "run_mha_bwd_": ("bwd", "Flash_bwd_params"),
}
HOW = (
    "Build a wheel with {} that include it (imagegen wheel compile, or the same keys in "
    "matrix.toml), or use an image whose flash-attn preset is 'full'."
)


@given(selections())
def test_the_stub_is_exactly_what_the_kernels_are_not(selection: Selection) -> None:
    ctypes = {ctype: dtype for dtype, ctype in DTYPES.items()}
    found = []
    for function, ctype, dim, causal, params in FUNCTION.findall(stub(selection)):
        kind, wanted = NAMES[function]
        assert params == wanted
        causal = "_causal" if causal == "true" else ""
        found.append(f"flash_{kind}_hdim{dim}_{ctypes[ctype]}{causal}_sm80.cu")
    assert len(found) == len(set(found))
    assert set(found) == set(KERNELS) - set(selection.kernels)


def test_the_stub_of_everything_defines_nothing() -> None:
    assert "TORCH_CHECK" not in stub(FULL)


@given(selections())
def test_every_stub_raises_and_says_what_is_missing_what_is_there_and_how_to_get_it(
    selection: Selection,
) -> None:
    text = stub(selection)
    found = FUNCTION.findall(text)
    checks = [line for line in text.splitlines() if "TORCH_CHECK(false" in line]
    assert len(checks) == len(found)
    words = {"run_mha_bwd_": "backward", "run_mha_fwd_": "forward"}
    for line, (function, ctype, dim, _, _) in zip(checks, found, strict=True):
        assert re.fullmatch(r'    TORCH_CHECK\(false, "[^"\\]+"\);', line)
        dtype = "bf16" if "bfloat16" in ctype else "fp16"
        kernel = words.get(function, "split-KV forward")
        assert f"has no {kernel} kernel for head dimensions up to {dim} in {dtype}: it hold" in line
        assert f"it holds head dimensions {', '.join(map(str, selection.head_dims))};" in line
        assert HOW.format("--head-dims and --dtypes") in line
    assert text.count("{") == text.count("}")


# Upstream's refusals, as 2.8.3.post2 has them, in their order; a check that is none; and the two
# places where it answers wrongly.
API = """
    #ifdef FLASHATTENTION_DISABLE_SOFTCAP
        TORCH_CHECK(softcap <= 0.0, "This flash attention build does not support softcap.");
    #endif
    TORCH_CHECK(p_dropout < 1.f);
    #ifdef FLASHATTENTION_DISABLE_DROPOUT
        TORCH_CHECK(p_dropout == 0.0f, "This flash attention build does not support dropout.");
    #endif
    #ifdef FLASHATTENTION_DISABLE_LOCAL
        TORCH_CHECK(params.is_causal || (window_size_left < 0 && window_size_right < 0),
            "This flash attention build does not support local attention.");
    #endif
    #ifdef FLASHATTENTION_DISABLE_UNEVEN_K
        TORCH_CHECK(d == d_rounded, "This flash attention build does not support headdim not being \
a multiple of 32.");
    #endif
#ifdef FLASHATTENTION_DISABLE_ALIBI
    TORCH_CHECK(!alibi_slopes_.has_value(), "This flash attention build does not support alibi.");
#endif
    if (softcap > 0.f) { TORCH_CHECK(p_dropout == 0.f, "Softcapping does not support dropout for \
now"); }
    CHECK_DEVICE(cu_seqlens_q);
    CHECK_DEVICE(cu_seqlens_k);

    at::Tensor block_table;
    const bool paged_KV = block_table_.has_value();
    if (paged_KV) {

void run_mha_bwd(Flash_bwd_params &params, cudaStream_t stream) {
    FP16_SWITCH(!params.is_bf16, [&] {

    #ifdef FLASHATTENTION_DISABLE_BACKWARD
        TORCH_CHECK(false, "This flash attention build does not support backward.");
    #endif
    #ifdef FLASHATTENTION_DISABLE_BACKWARD
        TORCH_CHECK(false, "This flash attention build does not support backward.");
    #endif
"""
REFUSED = ("softcap", "dropout", "local attention", "headdim not being a multiple of 32", "alibi")
BARE = 'support {}.");'
EVERY = replace(LLAMA, features=tuple(FEATURES))


@pytest.mark.parametrize("words", [*REFUSED, "backward"])
@pytest.mark.parametrize("selection", [LLAMA, replace(FULL, features=())])
def test_every_refusal_of_a_feature_says_how_to_get_it(words: str, selection: Selection) -> None:
    text = outspoken(API, selection)
    assert BARE.format(words) in API
    assert BARE.format(words) not in text
    said = f'"This flash attention build does not support {words}: it holds {selection.held}. '
    assert text.count(said + HOW.format("--features")) == (2 if words == "backward" else 1)


def test_nothing_but_the_words_changes() -> None:
    strings = re.compile(r'"[^"]*"')
    assert strings.sub("", outspoken(API, LLAMA)) == strings.sub("", outspoken(API, EVERY))
    assert '"Softcapping does not support dropout for now"' in outspoken(API, LLAMA)


def test_the_macro_of_every_feature_guards_a_refusal() -> None:
    guarded = re.findall(r"#ifdef (FLASH\w+)\n\s*TORCH_CHECK[^#]*build does not support", API)
    assert set(guarded) == set(FEATURES.values())


@pytest.mark.parametrize("selection", [LLAMA, EVERY, FULL])
@pytest.mark.parametrize(
    ("after", "check", "before"),
    [
        ("block_table_.has_value();\n", "!paged_KV || p_dropout == 0.f", "\n    if (paged_KV) {"),
        ("cudaStream_t stream) {\n", "bytes >= 144 * 1024", "\n    FP16_SWITCH("),
    ],
)
def test_what_upstream_answers_wrongly_is_refused_by_every_build(
    after: str, check: str, before: str, selection: Selection
) -> None:
    """First in its function, or as soon as its condition is known."""
    text = outspoken(API, selection)
    head, _, rest = text.partition(after)
    guard, found, _ = rest.partition(before)
    assert head and found
    assert guard.count(f"TORCH_CHECK({check}, ") == text.count(check) == 1
    assert guard.count("{") == guard.count("}") and guard.count("(") == guard.count(")")


def test_otherwise_an_api_with_every_feature_is_upstreams() -> None:
    ours = outspoken(API, EVERY).splitlines()
    assert [line for line in ours if line in API.splitlines()] == API.splitlines()
    assert all(bare in outspoken(API, FULL) for bare in map(BARE.format, REFUSED))


BACKWARD = "void run_mha_bwd(Flash_bwd_params &params, cudaStream_t stream) {\n"


@pytest.mark.parametrize("selection", [LLAMA, FULL])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "unknown flash_api.cpp: 0 times"),
        (API.replace("paged_KV = ", "paged = "), "0 times '    CHECK_DEVICE"),
        (API + BACKWARD, "2 times 'void run_mha_bwd"),
        (API.replace("build does not support alibi", "build has no alibi"), "it refuses"),
        (API.replace("does not support backward", "is forward only", 1), "it refuses"),
        (API + '"This flash attention build does not support fp8."', r"it refuses .*'fp8'"),
    ],
)
def test_an_api_that_nobody_has_looked_at_stops_the_build(
    text: str, words: str, selection: Selection
) -> None:
    with pytest.raises(SystemExit, match=words):
        outspoken(text, selection)
