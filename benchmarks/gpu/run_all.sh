#!/usr/bin/env bash
# Everything that is measured on a GPU, within ten minutes, into one JSON file.
#
#   bash benchmarks/gpu/run_all.sh [--output FILE] [--minutes 10] [--only PART ...] [--dry-run]
#
#   PYTHON                   an interpreter with torch for CUDA; default python3
#   MINDSPORE_PYTHON         one that has MindSpore; default PYTHON
#   MINDSPORE_ENVIRONMENT    a shell file to source before MindSpore starts, for a set-up that needs one
#
# FILE counts from the project's folder. Exits with 0 where all went well, 1 where a part failed or ran out of time (the
# file says which and why), 2 without a GPU. --dry-run runs the same code on the CPU with small sizes and marks the file:
# it measures nothing, and needs torch (the build for CPUs will do) and MindSpore.
set -euo pipefail

python="${PYTHON:-python3}"
output=docs/results/gpu/run_all.json
dry_run=
for argument in "$@"; do
    case "$argument" in
        -h | --help)
            sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
            exit
            ;;
        --dry-run) dry_run=1 ;;
    esac
done
command -v "$python" >/dev/null || {
    echo "error: PYTHON=$python is no program" >&2
    exit 3
}
if [[ -n "$dry_run" ]]; then
    output=build/gpu_dry_run.json
elif ! nvidia-smi -L >/dev/null 2>&1 &&
    ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' >/dev/null 2>&1; then
    echo "no GPU: neither nvidia-smi nor torch of $python finds one" >&2
    exit 2
fi

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m benchmarks.gpu.run_all --output "$output" \
    ${MINDSPORE_PYTHON:+--mindspore-python "$MINDSPORE_PYTHON"} \
    ${MINDSPORE_ENVIRONMENT:+--mindspore-environment "$MINDSPORE_ENVIRONMENT"} "$@"
