#!/usr/bin/env bash
# Sets up .venv on the first call, then runs the tests and prints the branch coverage of ms_kfac and model_zoo. It takes
# 45 minutes on two cores.
#
#   bash scripts/run_coverage.sh
#
# MindSpore compiles the bodies of steps, so that no Python runs in them that could be counted. The tests of PyNative
# mode therefore run once more with MS_JIT=0, which compiles nothing; only the first run decides the exit status.
if [ -z "${BASH_VERSION:-}" ] || shopt -oq posix; then exec bash "$0" "$@"; fi # as in `sh scripts/...`
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/environment.sh"
help_if_asked "${BASH_SOURCE[0]}" "$@"

ensure_environment test
cd "$PROJECT_ROOT"
status=0
export PYTEST_ADDOPTS="${PYTEST_ADDOPTS:-} --cov --cov-append --cov-report="
"$VENV_PYTHON" -m coverage erase
bash scripts/run_tests.sh || status=$?
areas=(capture curvature damping ops optim refresh statistics train)
MS_JIT=0 "$VENV_PYTHON" -m pytest -n auto --dist loadgroup -k pynative "${areas[@]/#/tests/}" \
    >coverage_without_jit.log || echo "some tests need compiled steps: coverage_without_jit.log"
"$VENV_PYTHON" -m coverage report
exit "$status"
