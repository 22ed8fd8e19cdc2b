#!/usr/bin/env bash
# Sets up .venv on the first call, then breaks training on purpose and prints a table of what was tried and what held:
# kills with resumes, long runs, and the tests of faults, bad input and ranks. It takes about an hour.
#
#   bash scripts/run_reliability.sh
#   bash scripts/run_reliability.sh --parts kills,soak --kills 5 --soak-share 0.05
#
#   --parts NAMES        some of the parts, separated by commas
#   --kills N            how many kills (default: 50)
#   --soak-share SHARE   share of the soak's steps (default: 1)
#   --output DIR         folder of the table, from the project's root (default: docs/results/reliability)
#
# The arguments go to `python -m benchmarks.reliability`.
if [ -z "${BASH_VERSION:-}" ] || shopt -oq posix; then exec bash "$0" "$@"; fi # as in `sh scripts/...`
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/environment.sh"
help_if_asked "${BASH_SOURCE[0]}" "$@"

ensure_environment test
cd "$PROJECT_ROOT"
exec "$VENV_PYTHON" -m benchmarks.reliability "$@"
