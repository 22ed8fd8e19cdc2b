#!/usr/bin/env bash
# Runs all GPU benchmarks within ten minutes and writes one JSON file.
#
#   bash benchmarks/gpu/run_all.sh [--output FILE] [--minutes 10] [--only PART ...] [--dry-run]
#
#   PYTHON                   an interpreter with torch for CUDA (default: python3)
#   MINDSPORE_PYTHON         an interpreter with MindSpore (default: PYTHON)
#   MINDSPORE_ENVIRONMENT    a shell file to source before MindSpore starts, if the set-up needs one
#
# FILE is relative to the project folder. The exit status is 0 if all went well, 1 if a part failed or ran out of time
# (the file says which and why), and 2 without a GPU. --dry-run runs the same code on the CPU with small sizes and marks
# the file. It measures nothing, and needs torch (a CPU build is enough) and MindSpore.
if [ -z "${BASH_VERSION:-}" ] || shopt -oq posix; then exec bash "$0" "$@"; fi # as in `sh scripts/...`
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
    echo "error: PYTHON=$python is not a program" >&2
    exit 3
}
if [[ -n "$dry_run" ]]; then
    output=build/gpu_dry_run.json
elif ! nvidia-smi -L >/dev/null 2>&1 &&
    ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' >/dev/null 2>&1; then
    echo "no GPU: neither nvidia-smi nor torch of $python finds one" >&2
    exit 2
fi

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m benchmarks.gpu.run_all --output "$output" \
    ${MINDSPORE_PYTHON:+--mindspore-python "$MINDSPORE_PYTHON"} \
    ${MINDSPORE_ENVIRONMENT:+--mindspore-environment "$MINDSPORE_ENVIRONMENT"} "$@"
