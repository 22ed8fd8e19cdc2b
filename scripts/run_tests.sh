#!/usr/bin/env bash
# Sets up .venv on the first call, then runs the tests; the arguments go to pytest. Without arguments, the whole suite
# runs with one process per processor, because most of its time is single-threaded compilation, and in four parts,
# because MindSpore keeps memory of every graph that a process compiles: 15 GiB for the suite. --quick alone runs one
# case of every fourth test, without tests whose set-up is slow.
#
#   bash scripts/run_tests.sh
#   bash scripts/run_tests.sh --quick
#   bash scripts/run_tests.sh tests/optim -k momentum
#
# Once .venv exists, `.venv/bin/python -m pytest --help` lists pytest's options.
if [ -z "${BASH_VERSION:-}" ] || shopt -oq posix; then exec bash "$0" "$@"; fi # as in `sh scripts/...`
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/environment.sh"
help_if_asked "${BASH_SOURCE[0]}" "$@"

ensure_environment test
cd "$PROJECT_ROOT"
parallel=(-n auto --dist loadgroup)
if [[ "$*" == --quick ]]; then
    set -- "${parallel[@]}" "$@"
fi
if (($# > 0)); then
    exec "$VENV_PYTHON" -m pytest "$@"
fi

PARTS=4
mapfile -t files < <(find tests -name 'test_*.py' | sort)
size=$(((${#files[@]} + PARTS - 1) / PARTS))
failed=()
for ((part = 0; part < PARTS; part++)); do
    "$VENV_PYTHON" -m pytest "${parallel[@]}" "${files[@]:part * size:size}" || failed+=("$((part + 1))")
done
if ((${#failed[@]})); then
    fail "tests failed in part ${failed[*]} of $PARTS."
fi
