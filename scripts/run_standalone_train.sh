#!/usr/bin/env bash
# Sets up .venv on the first call, then trains on one device.
#
#   bash scripts/run_standalone_train.sh                    ResNet-20 with K-FAC on the embedded digits
#   bash scripts/run_standalone_train.sh --recipe FILE ...  any recipe
#
#   --recipe FILE        the YAML recipe
#   --data-dir DIR       the data set's folder; scripts/prepare_data.sh creates it
#   --output DIR         folder to write to (default: runs/RECIPE-TIME)
#   --resume FOLDER      continue the run in this folder, instead of --recipe and --output
#   --set KEY=VALUE      override a value of the recipe, such as optimizer.learning_rate=0.01
#   --device NAME        CPU, GPU or Ascend
#
# These and all other options go to `python -m model_zoo.train`. Once .venv exists, this lists them:
#
#   PYTHONPATH=. .venv/bin/python -m model_zoo.train --help
if [ -z "${BASH_VERSION:-}" ] || shopt -oq posix; then exec bash "$0" "$@"; fi # as in `sh scripts/...`
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/environment.sh"
help_if_asked "${BASH_SOURCE[0]}" "$@"

default_recipe=(--recipe "$PROJECT_ROOT/model_zoo/resnet/resnet20_digits_kfac.yaml")
for argument in "$@"; do
    case "$argument" in
        # A resumed run uses its stored recipe.
        --recipe | --recipe=* | --resume | --resume=*) default_recipe=() ;;
    esac
done

use_model_zoo
exec "$VENV_PYTHON" -m model_zoo.train ${default_recipe[@]+"${default_recipe[@]}"} "$@"
