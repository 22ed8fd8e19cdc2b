# shellcheck shell=bash
# Sourced by the launchers: creates and reuses the project's virtual environment.
#
#   ensure_environment EXTRA    creates .venv if it is missing, and installs ms_kfac[EXTRA] (editable) if pyproject.toml,
#                               setup.py or a kernel has changed
#   help_if_asked SCRIPT "$@"   prints SCRIPT's leading comment and exits if -h or --help is among the arguments
#   use_model_zoo               sets up the environment, and makes model_zoo importable from any folder
#   PYTHON                      the interpreter for .venv, instead of the first suitable one found
#   MS_KFAC_PYTHON              an interpreter that already has ms_kfac[zoo]; nothing is created or installed
#   VENV_PYTHON                 set here: the interpreter of .venv, or MS_KFAC_PYTHON

# With CDPATH, cd would prefer another folder of the same name.
PROJECT_ROOT="$(unset CDPATH && cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# Python takes empty entries of PYTHONPATH for the working folder.
if [[ -n "${PYTHONPATH+set}" ]]; then
    PYTHONPATH="$(tr ':' '\n' <<<"$PYTHONPATH" | sed '/^$/d' | paste -sd :)"
fi

# Python puts the working folder in front of its search path for -m and -c: a file there with the name of a module would
# be run. -I leaves it out, and everything of the user's; the zoo's own commands leave it out in other ways.
VENV_PYTHON="${MS_KFAC_PYTHON:-$PROJECT_ROOT/.venv/bin/python}"

# On AVX-512 machines, oneDNN 3 uses a reference convolution for some of MindSpore's layouts, tens of times slower than
# its AVX2 kernels. It reads this variable once, before its first operator runs.
export ONEDNN_MAX_CPU_ISA="${ONEDNN_MAX_CPU_ISA:-AVX2}"

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# For usage errors: exit status 2.
refuse() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

help_if_asked() {
    local script="$1" argument
    shift
    for argument in "$@"; do
        case "$argument" in
            -h | --help)
                sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$script"
                exit
                ;;
        esac
    done
}

suitable_python() {
    # sys is built in.
    "$1" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1
}

find_python() {
    local candidate
    if [[ -n "${PYTHON:-}" ]]; then
        suitable_python "$PYTHON" || fail "PYTHON=$PYTHON is not a Python from 3.9 to 3.12, which MindSpore needs."
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3.11 python3 python3.12 python3.10 python3.9; do
        if suitable_python "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    fail "no Python from 3.9 to 3.12 was found, which MindSpore needs; install python3.11 or set PYTHON."
}

create_venv() {
    local python
    python="$(find_python)" || exit 1
    "$python" -I -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        fail "$python can't create virtual environments; on Debian, install the package python3-venv."
    rm -f "$PROJECT_ROOT"/.venv/ms_kfac-*
    echo "Creating .venv with $("$python" --version)"
    "$python" -I -m venv "$PROJECT_ROOT/.venv" || fail "$python could not create $PROJECT_ROOT/.venv."
}

# Fails with a clear message if a system library is missing.
check_mindspore() {
    local message
    message="$("$VENV_PYTHON" -I -c 'import mindspore' 2>&1)" && return
    case "$message" in
        *libgomp.so.1*) fail "MindSpore needs libgomp.so.1; on Debian, install the package libgomp1." ;;
        *) fail "MindSpore was installed but can't be imported: $(tail -n 1 <<<"$message")" ;;
    esac
}

# A new compiler, or a deleted library, requires another installation.
kernels_built_or_no_compiler() {
    [[ -f "$PROJECT_ROOT/ms_kfac/kernels/_cpu.so" ]] || ! command -v g++ >/dev/null
}

ensure_environment() {
    local extra="$1" stamp wanted
    if [[ -n "${MS_KFAC_PYTHON:-}" ]]; then
        suitable_python "$MS_KFAC_PYTHON" || fail "MS_KFAC_PYTHON=$MS_KFAC_PYTHON is not a Python from 3.9 to 3.12."
        return
    fi
    "$VENV_PYTHON" -I -m pip --version >/dev/null 2>&1 || create_venv
    # The install is editable, so only the metadata and the compiled kernels can become outdated.
    wanted="$(cd "$PROJECT_ROOT" && find pyproject.toml setup.py ms_kfac/kernels/interface ms_kfac/kernels/cpu -type f -exec sha256sum {} + |
        sort | sha256sum | cut -d ' ' -f 1)"
    stamp="$PROJECT_ROOT/.venv/ms_kfac-$extra.sha256"
    if [[ -f "$stamp" && "$(<"$stamp")" == "$wanted" ]] && kernels_built_or_no_compiler; then
        return
    fi
    echo "Installing ms_kfac[$extra] into .venv (once; MindSpore is a large download)"
    "$VENV_PYTHON" -I -m pip install --quiet --quiet --disable-pip-version-check \
        --editable "${PROJECT_ROOT}[$extra]" || fail "pip could not install ms_kfac[$extra]; see its message above."
    check_mindspore
    "$VENV_PYTHON" -I -c 'from ms_kfac import kernels; print(*kernels.status().splitlines()[:2], sep="\n")' 2>/dev/null || true
    printf '%s\n' "$wanted" >"$stamp"
}

use_model_zoo() {
    ensure_environment zoo
    # The zoo is not part of the installed package. The working folder stays, so that relative paths are valid, but
    # nothing is imported from it.
    export PYTHONPATH="$PROJECT_ROOT${PYTHONPATH:+:$PYTHONPATH}"
    # Python 3.11 and newer; model_zoo/__init__.py is for the older ones.
    export PYTHONSAFEPATH=1
}
