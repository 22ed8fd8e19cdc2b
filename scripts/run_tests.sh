#!/usr/bin/env bash
# Sets up .venv on the first call, then runs the tests; the arguments go to pytest.
#
#   bash scripts/run_tests.sh
#   bash scripts/run_tests.sh tests/optim -k momentum
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

ensure_environment test
cd "$PROJECT_ROOT"
exec "$VENV_PYTHON" -m pytest "$@"
