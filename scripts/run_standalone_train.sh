#!/usr/bin/env bash
# Sets up .venv on the first call, then trains on one device.
#
#   bash scripts/run_standalone_train.sh                    ResNet-20 with K-FAC on the embedded digits
#   bash scripts/run_standalone_train.sh --recipe FILE ...  any recipe; all arguments go to `python -m model_zoo.train`
#   bash scripts/run_standalone_train.sh --help             what those arguments are
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

default_recipe=(--recipe "$PROJECT_ROOT/model_zoo/resnet/resnet20_digits_kfac.yaml")
for argument in "$@"; do
    case "$argument" in
        --recipe | --recipe=* | -h | --help) default_recipe=() ;;
    esac
done

ensure_environment zoo
# The zoo is not part of the installed package; the working folder stays the caller's, so that relative paths hold.
export PYTHONPATH="$PROJECT_ROOT${PYTHONPATH:+:$PYTHONPATH}"
exec "$VENV_PYTHON" -m model_zoo.train ${default_recipe[@]+"${default_recipe[@]}"} "$@"
