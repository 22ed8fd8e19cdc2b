#!/usr/bin/env bash
# Sets up .venv on the first call, then trains on one device.
#
#   bash scripts/run_standalone_train.sh                      ResNet-20 with K-FAC on the embedded digits
#   bash scripts/run_standalone_train.sh --recipe RECIPE ...  any recipe
#
#   --recipe RECIPE      a YAML file, or a name that `ms-kfac-zoo recipes` lists
#   --data-dir DIR       the data set's folder; scripts/prepare_data.sh creates it
#   --output DIR         folder to write to (default: runs/RECIPE-TIME)
#   --resume FOLDER      continue the run in this folder, instead of --recipe and --output
#   --set KEY=VALUE      override a value of the recipe, such as optimizer.learning_rate=0.01
#   --device NAME        CPU, GPU or Ascend
#
# These and all other options go to `ms-kfac-zoo train`. Once .venv exists, this lists them:
#
#   .venv/bin/ms-kfac-zoo train --help
if [ -z "${BASH_VERSION:-}" ] || shopt -oq posix; then exec bash "$0" "$@"; fi # as in `sh scripts/...`
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/environment.sh"
help_if_asked "${BASH_SOURCE[0]}" "$@"

default_recipe=(--recipe resnet/resnet20_digits_kfac)
for argument in "$@"; do
    case "$argument" in
        # A resumed run uses its stored recipe.
        --recipe | --recipe=* | --resume | --resume=*) default_recipe=() ;;
    esac
done

use_model_zoo
exec "$VENV_PYTHON" -c "$ZOO_COMMAND" train ${default_recipe[@]+"${default_recipe[@]}"} "$@"
