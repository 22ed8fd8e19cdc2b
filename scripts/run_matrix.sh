#!/usr/bin/env bash
# Installs a wheel into an empty environment of each Python and MindSpore, trains the README's program there, runs tests of
# the native kernels, and writes what was printed to a file per pair. Downloads MindSpore for each pair.
#
#   bash scripts/run_matrix.sh
#   bash scripts/run_matrix.sh --pythons "python3.10 python3.12" --mindspores "2.9.0 2.10.0"
#
#   --wheel FILE          the wheel (default: the one in dist; scripts/build_wheel.sh builds it)
#   --pythons "A B"       interpreters (default: those of python3.9 to python3.12 that are found)
#   --mindspores "A B"    versions of MindSpore (default: the newest of each release that the wheel accepts)
#   --output DIR          folder of the files (default: docs/results/packaging)
#   --without-tests       only train the README's program
#
# The tests are those of each native operator, in graph and in PyNative mode, and a step by each method. The exit status is
# 1 if a pair failed. Pairs of Python 3.9 and MindSpore 2.10 are left out, because MindSpore has no wheel for them.
if [ -z "${BASH_VERSION:-}" ] || shopt -oq posix; then exec bash "$0" "$@"; fi # as in `sh scripts/...`
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/environment.sh"
help_if_asked "${BASH_SOURCE[0]}" "$@"

wheel=""
pythons=""
mindspores="2.7.2 2.8.0 2.9.0 2.10.0"
tests=true
output="$PROJECT_ROOT/docs/results/packaging"
while (($#)); do
    case "$1" in
        --wheel | --pythons | --mindspores | --output)
            (($# > 1)) || refuse "$1 needs a value."
            case "$1" in
                --wheel) wheel="$2" ;;
                --pythons) pythons="$2" ;;
                --mindspores) mindspores="$2" ;;
                --output) output="$2" ;;
            esac
            shift 2
            ;;
        --without-tests)
            tests=false
            shift
            ;;
        *) refuse "unknown option $1; see --help." ;;
    esac
done
if [[ -z "$wheel" ]]; then
    wheels=("$PROJECT_ROOT"/dist/*.whl)
    wheel="${wheels[0]}"
    ((${#wheels[@]} == 1)) || refuse "dist has ${#wheels[@]} wheels: name one with --wheel."
fi
[[ -f "$wheel" ]] || refuse "$wheel is missing: scripts/build_wheel.sh builds it, or name another with --wheel."
wheel="$(realpath "$wheel")"
if [[ -z "$pythons" ]]; then
    for python in python3.9 python3.10 python3.11 python3.12; do
        ! suitable_python "$python" || pythons+=" $python"
    done
fi
[[ -n "$pythons" ]] || fail "no Python from 3.9 to 3.12 was found, which MindSpore needs; name some with --pythons."
for python in $pythons; do
    suitable_python "$python" || fail "$python is not a Python from 3.9 to 3.12, which MindSpore needs."
done

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
mkdir -p "$output"
{
    cat <<'PROGRAM'
import mindspore
import numpy as np
from mindspore.dataset import NumpySlicesDataset

mindspore.set_seed(0)
random = np.random.default_rng(0)
labels = (np.arange(400) % 10).astype(np.int32)
images = (random.random((10, 1, 8, 8))[labels] + 0.3 * random.random((400, 1, 8, 8))).astype(np.float32)
train_set = NumpySlicesDataset((images, labels), ["image", "label"], shuffle=False).batch(20)
PROGRAM
    # shellcheck disable=SC2016 # Backquotes of Markdown.
    sed -n '/^```python$/,/^```$/{/^```/!p}' "$PROJECT_ROOT/README.md"
    cat <<'PROGRAM'
accuracy = model.eval(train_set)["accuracy"]
print("accuracy", accuracy)
assert accuracy > 0.9, "nothing was learned"
print(*ms_kfac.kernels.status().splitlines()[:3], sep="\n")
PROGRAM
} >"$folder/program.py"

# Without the sources of the package, so that the tests import the wheel's.
mkdir "$folder/clone"
cp -R "$PROJECT_ROOT"/{pyproject.toml,tests,benchmarks} "$folder/clone"
mapfile -t test_packages < <(grep -oE '"(hypothesis|pytest|pytest-timeout)>=[^"]*"' "$PROJECT_ROOT/pyproject.toml" | tr -d '"')
selection=(
    tests/kernels/test_status.py
    tests/ops/refresh/test_kronecker_refresh.py
    tests/ops/refresh/test_refresh_forms.py
    tests/ops/statistics/test_{kronecker,eigenbasis}_statistics.py::test_modes_and_types_and_micro_batches
    tests/ops/statistics/test_sherman_morrison_statistics.py::test_modes
    tests/ops/statistics/test_trace_restricted_statistics.py::test_in_both_modes_with_a_gate
    tests/ops/step/test_layer_precondition.py
    tests/ops/step/test_momentum_step.py::test_follows_the_rule
    tests/statistics/test_commit.py::test_batches_count_by_their_weights
    tests/statistics/test_measure.py
    tests/optim/test_every_method.py::test_evaluation_does_not_change_the_statistics"[graph-"{KFAC,TKFAC,SMKFAC,SKFAC,EKFAC,SPNGD,THOR}"]"
)

install() { "$folder/environment/bin/python" -I -m pip install --quiet --quiet --disable-pip-version-check --no-compile "$@" 2>&1; }

# PYTHON MINDSPORE: everything that happens to a pair, on the standard output.
try() {
    local environment="$folder/environment"
    rm -rf "$environment"
    "$1" -I -m venv "$environment" || return
    install "$wheel" "mindspore==$2" || return
    "$environment/bin/python" -I -m pip list --disable-pip-version-check 2>/dev/null |
        grep -E '^(mindspore|ms_kfac|numpy|scipy-openblas32) '
    (cd "$folder" && "$environment/bin/python" program.py 2>&1) || return
    [[ "$tests" == true ]] || return 0
    install "${test_packages[@]}" || return
    # A kernel that is missing is an error.
    (cd "$folder/clone" && MS_KFAC_REQUIRE_NATIVE=1 "$environment/bin/python" -m pytest -q --disable-warnings \
        -k "not fallback" "${selection[@]}" 2>&1)
}

commit="$(git -C "$PROJECT_ROOT" rev-parse HEAD 2>/dev/null || echo unknown)"
failed=()
for python in $pythons; do
    version="$("$python" -I -c 'import platform; print(platform.python_version())')"
    for mindspore in $mindspores; do
        if [[ "$version $mindspore" == 3.9.*" "2.10* ]]; then
            printf 'Python %s, MindSpore %s: left out\n' "$version" "$mindspore"
            continue
        fi
        file="$output/python${version}_mindspore_$mindspore.txt"
        {
            echo "Commit $commit, $(date +%F), ${wheel##*/}, Python $version"
            echo
        } >"$file"
        if try "$python" "$mindspore" | sed "s|$folder/||g" >>"$file"; then
            result="passed"
        else
            result="FAILED: see $file"
            failed+=("$file")
        fi
        printf 'Python %s, MindSpore %s: %s\n' "$version" "$mindspore" "$result"
    done
done
((!${#failed[@]}))
