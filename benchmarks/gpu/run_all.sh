#!/usr/bin/env bash
# Checks and measures on a GPU within nine minutes, and writes one JSON file.
#
#   bash benchmarks/gpu/run_all.sh [--output FILE] [--minutes 9] [--only PART ...] [--dry-run]
#   bash benchmarks/gpu/run_all.sh --mindspore FOLDER [...]
#
#   PYTHON                   an interpreter with torch for CUDA (default: python3)
#   MINDSPORE_PYTHON         an interpreter with MindSpore (default: PYTHON)
#   MINDSPORE_ENVIRONMENT    a shell file to source before MindSpore starts, if the set-up needs one
#
# FILE is docs/results/gpu/run_all.json of the project by default. With --mindspore, it unpacks MindSpore from FOLDER
# and trains with it, instead of checking the kernels alone. FOLDER has setup.sh and mindspore*.part*:
# `setup.sh PARTS...` unpacks them under $MSROOT (a temporary folder by default) and tries MindSpore; sourced, it sets
# the environment.
#
# Exit status: 0 if every part that can run here is done; 1 if one failed or ran out of time (the file says which and
# why); 2 if an argument is wrong; 3 if nothing ran, such as without a GPU. --dry-run runs the same code on the CPU with
# small sizes and marks the file. It measures nothing, and needs torch (a CPU build is enough).
if [ -z "${BASH_VERSION:-}" ] || shopt -oq posix; then exec bash "$0" "$@"; fi # as in `sh scripts/...`
set -euo pipefail

python="${PYTHON:-python3}"
for argument in "$@"; do
    case "$argument" in
        -h | --help)
            sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
            exit
            ;;
    esac
done
command -v "$python" >/dev/null || {
    echo "error: PYTHON=$python is not a program" >&2
    exit 2
}
root="$(unset CDPATH && cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)"
# The working folder stays, so that relative paths are valid, but nothing is imported from it.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
exec "$python" -m benchmarks.gpu.run_all \
    ${MINDSPORE_PYTHON:+--mindspore-python "$MINDSPORE_PYTHON"} \
    ${MINDSPORE_ENVIRONMENT:+--mindspore-environment "$MINDSPORE_ENVIRONMENT"} "$@"
