#!/usr/bin/env bash
# Run the benchmarks for a short lease of one A100, H100 or H200: `perf/lease.sh [FOLDER] [MINUTES]`, 9 minutes at most.
# Every part has its own limit and writes its rows at once; a part that fails or runs late does not stop the next.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-perf/results/lease} end=$((SECONDS + 60 * ${2:-9}))
export PYTHONPATH=$PWD:$PWD/kernels PYTHONUNBUFFERED=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
python=${PYTHON:-python3}
"$python" - <<'EOF' || exit 2
import importlib.util, sys
needed = {"torch": "torch", "triton": "triton", "deepspeed": "deepspeed", "einops": "einops", "numpy": "numpy",
          "yaml": "pyyaml", "safetensors": "safetensors", "rich": "rich"}
missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
if missing:
    sys.exit("missing: pip install " + " ".join(missing))
import torch
if not torch.cuda.is_available():
    sys.exit("no CUDA device: nothing would be measured")
EOF
mkdir -p "$out"

part() { # part SECONDS COMMAND...: run a command within its limit and the remaining time
    local limit=$1 remaining=$((end - SECONDS)) code=0
    shift
    ((limit < remaining)) || limit=$remaining
    ((limit > 20)) || { echo "== no time left for: $*"; return; }
    echo "== $* (at most $limit s)"
    timeout --kill-after=5 "$limit" "$python" -m "$@" 2>&1 | tee -a "$out/lease.log" || code=$?
    ((code == 0)) || echo "== ended with $code: $*"
}

part 240 perf step --minutes 3.5 --steps 4 --json "$out/step.jsonl"
part 60 xdub.plan.check --out "$out/plan_agreement.json"
part 130 perf run --seconds 1 --json "$out/run.jsonl"
part 150 perf step --minutes 2 --steps 4 --compile on --checkpointing attention --json "$out/step_compiled.jsonl"
ls -l "$out"
