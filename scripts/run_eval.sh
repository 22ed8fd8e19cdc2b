#!/usr/bin/env bash
# Sets up .venv on the first call, then evaluates a checkpoint on one device.
#
#   bash scripts/run_eval.sh --checkpoint PATH ...
#
#   --checkpoint PATH    network.ckpt of a run, the folder of a checkpoint, or the folder of a run
#   --recipe RECIPE      the recipe of the network, if none is stored next to it
#   --data-dir DIR       the data set's folder; scripts/prepare_data.sh creates it
#   --split NAME         train or test
#   --device NAME        CPU, GPU or Ascend
#
# These and all other options go to `ms-kfac-zoo eval`. Once .venv exists, this lists them:
#
#   .venv/bin/ms-kfac-zoo eval --help
if [ -z "${BASH_VERSION:-}" ] || shopt -oq posix; then exec bash "$0" "$@"; fi # as in `sh scripts/...`
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/environment.sh"
help_if_asked "${BASH_SOURCE[0]}" "$@"

use_model_zoo
exec "$VENV_PYTHON" -c "$ZOO_COMMAND" eval "$@"
