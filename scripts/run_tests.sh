#!/usr/bin/env bash
# Sets up .venv on the first call, then runs the tests; the arguments go to pytest. Without arguments, the whole suite
# runs with one process per processor, because most of its time is single-threaded compilation. --quick alone runs one
# case of every fourth test in the same way, without tests whose set-up is slow.
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
if (($# == 0)) || [[ "$*" == --quick ]]; then
    set -- -n auto --dist loadgroup "$@"
fi
exec "$VENV_PYTHON" -m pytest "$@"
