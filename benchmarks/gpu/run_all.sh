#!/usr/bin/env bash
# Everything that is measured on a GPU, within ten minutes, into one JSON file.
#
#   bash benchmarks/gpu/run_all.sh [--output FILE] [--minutes 10] [--only PART ...] [--dry-run]
#
#   PYTHON                   an interpreter with torch for CUDA; default python3
#   MINDSPORE_PYTHON         one that has MindSpore; default PYTHON
#   MINDSPORE_ENVIRONMENT    a shell file to source before MindSpore starts, for a set-up that needs one
#
# Exits with 0 where all went well, 1 where a part failed or ran out of time (the file says which and why), 2 without
# a GPU. --dry-run runs the same code on the CPU with small sizes and marks the file: it measures nothing.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python="${PYTHON:-python3}"
output=docs/results/gpu/run_all.json
dry_run=
for argument in "$@"; do
    [[ "$argument" == --dry-run ]] && dry_run=1
done
if [[ -n "$dry_run" ]]; then
    output=build/gpu_dry_run.json
elif ! nvidia-smi -L >/dev/null 2>&1 &&
    ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' >/dev/null 2>&1; then
    echo "no GPU: neither nvidia-smi nor torch of $python finds one" >&2
    exit 2
fi

export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m benchmarks.gpu.run_all --output "$output" \
    ${MINDSPORE_PYTHON:+--mindspore-python "$MINDSPORE_PYTHON"} \
    ${MINDSPORE_ENVIRONMENT:+--mindspore-environment "$MINDSPORE_ENVIRONMENT"} "$@"
