#!/usr/bin/env bash
# gpu.sh SDIST [-- OPTION...]...: on a machine with a GPU, torch and nvcc and no Docker, build
# flash-attn from its source distribution with the images' own recipe, for this GPU's architecture,
# then run all of the images' own GPU checks with it, none of them skipped, and time it. The OPTIONs
# after each -- are one selection, e.g.  gpu.sh SDIST -- --preset llama -- --preset gpt2 --dtypes bf16
#   WORK=DIR      keep what is compiled there, so that a call that was cut short goes on
#   RESULTS=DIR   write wheel.json, promise.json, checks.jsonl and speed.json there, as 1-*, 2-*, ...
#   COMPARE=DIR   time each selection against the build in this folder (its site-packages);
#                 "first" is the first selection
set -euo pipefail
# NVLink multicast off, as a borrowed machine may ask: a fault in it takes the whole host's GPUs down.
export NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 NVSHMEM_DISABLE_NVLS=1
here=$(cd "$(dirname "$0")/.." && pwd)
sdist=$(realpath "$1")
shift
(($#)) || set -- -- --preset llama --dtypes bf16
[[ $1 == -- ]] || { echo "gpu.sh SDIST [-- OPTION...]..." >&2; exit 2; }
work=${WORK:-$(mktemp -d)}
results=${RESULTS:-$work/results}
compare=${COMPARE:-}
path=${PYTHONPATH:-}
mkdir -p "$work" "$results"
work=$(realpath "$work")
arch=$(python3 -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader
nvcc --version | tail -n 2
cuda=$(nvcc --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
in_image=$here/imagegen/image/checks:$here/imagegen/image/pod  # one folder in an image
# Of the checks that need no GPU only those of flash-attn: the others are about an image.
names=$(PYTHONPATH=$in_image python3 -c '
import smoke
print(*(n for n, c in smoke.SUITE.items() if c.level == "gpu"), "flash_attn_loads", "flash_attn_kernels")')
read -ra checks <<<"$names"
# torch's headers include those of CUDA's libraries, which a bare nvcc lacks; torch's wheels have them.
headers=$(python3 -c '
import glob, sysconfig
print(":".join(glob.glob(sysconfig.get_path("purelib") + "/nvidia/*/include")))')

promise() { # the recipe's JSON line -> what smoke.py reads
    python3 - "$1" "$cuda" <<'PYTHON'
import json, sys, torch
wheel = json.load(open(sys.argv[1]))
version = wheel["wheel"].split("-")[1].split("+")[0]
kernels = {name: wheel[name] for name in ("archs", "head_dims", "dtypes", "features")}
flash = {"generation": 2, "version": version, **kernels}
print(json.dumps({"flash_attn": flash, "torch": torch.__version__, "cuda": sys.argv[2]}))
PYTHON
}

selection() { # NUMBER OPTION...: build, check, time
    local number=$1 out="$results/$1" site="$work/site$1" versus=()
    shift
    echo "== $number: ${*:-every kernel}"
    rm -rf "$work/wheels$number" "$site"
    PYTHONPATH="$here/imagegen/image/wheel:$path" python3 -m flash_attn_wheel build "$sdist" \
        --out "$work/wheels$number" --work "$work/build" --archs "$arch" "$@" \
        > "$out-build.log" 2>&1 || { tail -n 40 "$out-build.log"; return 1; }
    tail -n 1 "$out-build.log" | tee "$out-wheel.json"
    python3 -m pip install --quiet --no-index --no-deps --target "$site" \
        "$work/wheels$number"/*.whl || return 1
    promise "$out-wheel.json" > "$out-promise.json" || return 1

    local failed=0
    CPATH="$headers" PYTHONPATH="$site:$in_image:$path" python3 "$here/imagegen/image/checks/smoke.py" --level gpu --require gpu \
        --promise "$out-promise.json" "${checks[@]/#/--only=}" | tee "$out-checks.jsonl" || failed=1
    if [[ $compare == first && $number != 1 ]]; then
        versus=(--compare "$work/site1")
    elif [[ $compare && $compare != first ]]; then
        versus=(--compare "$compare")
    fi
    PYTHONPATH="$site:$path" python3 "$here/benchmarks/attention_speed.py" \
        --promise "$out-promise.json" --json "$out-speed.json" "${versus[@]}" || failed=1
    return "$failed"
}

status=0 number=0
while (($#)); do
    shift # the --
    options=()
    while (($#)) && [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    number=$((number + 1))
    selection "$number" "${options[@]}" || status=1
done
exit "$status"
