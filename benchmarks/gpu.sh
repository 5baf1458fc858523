#!/usr/bin/env bash
# gpu.sh SDIST [OPTION...]: on a machine with a GPU, torch and nvcc and no Docker, build flash-attn
# from its source distribution with the images' own recipe, for this GPU's architecture, and run the
# images' own GPU checks with it. OPTIONs go to the recipe, e.g. --head-dims 64,128.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
sdist=$(realpath "$1")
shift
(($#)) || set -- --head-dims 128 --dtypes bf16 --features backward
work=$(mktemp -d)
arch=$(python3 -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader
nvcc --version | tail -n 2

python3 "$here/imagegen/image/wheel/flash_attn_wheel.py" "$sdist" \
    --out "$work/wheels" --work "$work/build" --archs "$arch" "$@" > "$work/build.log" 2>&1 \
    || { tail -n 40 "$work/build.log"; exit 1; }
tail -n 1 "$work/build.log" | tee "$work/wheel.json"
python3 -m pip install --quiet --no-index --no-deps --target "$work/site" "$work"/wheels/*.whl

python3 - "$work/wheel.json" > "$work/promise.json" <<'PYTHON'
import json, sys, torch
wheel = json.load(open(sys.argv[1]))
version = wheel["wheel"].split("-")[1].split("+")[0]
kernels = {name: wheel[name] for name in ("archs", "head_dims", "dtypes", "features")}
print(json.dumps({"flash_attn": {"version": version, **kernels}, "torch": torch.__version__}))
PYTHON
export PYTHONPATH="$work/site"
python3 "$here/imagegen/image/pod/smoke.py" --level gpu --promise "$work/promise.json" \
    --only cuda_kernel --only flash_attn_loads --only flash_attn_kernels \
    --only flash_attn_forward_backward --only flash_attn_varlen --only flash_attn_kvcache \
    --only flash_attn_refuses --only transformers_sees_flash_attn --only llama_trains
