#!/usr/bin/env bash
# two_gpus.sh: on a machine with at least two GPUs, torch and no Docker, run those of the images' own
# checks that are about several GPUs, and exit with their status. RESULTS=DIR: two-gpus.jsonl there.
set -euo pipefail
image=$(cd "$(dirname "$0")/../imagegen/image" && pwd)
results=${RESULTS:-$(mktemp -d)}
mkdir -p "$results"
# NVLink multicast off, as a borrowed machine may ask: a fault in it takes the whole host's GPUs down.
export NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 NVSHMEM_DISABLE_NVLS=1

nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader
nvidia-smi topo -m || true # what links them
promise=$(python3 -c '
import json, torch
count = torch.cuda.device_count()
if count < 2:
    raise SystemExit(f"two_gpus.sh: expected two GPUs or more, found {count}")
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "flash_attn": None}))')
checks=(driver_runs_cuda gpu_report torch_matmul torch_matmul_fp8 nccl_all_gpus)
PYTHONPATH=$image/pod${PYTHONPATH:+:$PYTHONPATH} python3 "$image/checks/smoke.py" --level gpu --require gpu --promise - "${checks[@]/#/--only=}" <<<"$promise" |
    tee "$results/two-gpus.jsonl"
