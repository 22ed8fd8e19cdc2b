# shellcheck shell=bash
# Sourced by the launchers: creates and reuses the project's virtual environment.
#
#   ensure_environment EXTRA    creates .venv if it is missing, and installs ms_kfac[EXTRA] (editable) if pyproject.toml,
#                               setup.py or a kernel has changed
#   help_if_asked SCRIPT "$@"   prints SCRIPT's leading comment and exits if -h or --help is among the arguments
#   use_model_zoo               sets up the environment for the zoo's commands
#   ZOO_COMMAND                 a program for "$VENV_PYTHON" -c: ms-kfac-zoo, with its arguments
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
# be run. -I leaves it out, and everything of the user's. In the root of a clone, the zoo and ms_kfac would be those of the
# clone, where MS_KFAC_PYTHON has others.
VENV_PYTHON="${MS_KFAC_PYTHON:-$PROJECT_ROOT/.venv/bin/python}"
# shellcheck disable=SC2034 # The launchers read it.
ZOO_COMMAND='import sys
sys.path[:] = filter(None, sys.path)
from model_zoo.__main__ import main
sys.exit(main())'

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

# Fails with pip's own last error; all of its output stays in a file.
install_editable() {
    local log="$PROJECT_ROOT/.venv/install.log" message
    "$VENV_PYTHON" -I -m pip install --disable-pip-version-check --editable "${PROJECT_ROOT}[$1]" >"$log" 2>&1 && return
    if grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeoutError|Network is unreachable' "$log"; then
        message="its package index can't be reached"
    else
        message="$(sed -n 's/^ *ERROR: //p' "$log" | tail -n 1)"
    fi
    fail "pip could not install ms_kfac[$1]: ${message:-no reason was given}; its output is in $log"
}

# Fails if the interpreter of MS_KFAC_PYTHON lacks packages. The zoo checks what else it needs.
check_modules() {
    local modules="" missing
    case "$1" in
        docs) modules="latex2mathml material mkdocs mkdocstrings pymdownx ruff" ;;
        lint) modules="mypy ruff" ;;
        release) modules="auditwheel build check_wheel_contents setuptools twine" ;;
        test) modules="hypothesis mindspore pytest pytest_cov pytest_timeout xdist yaml" ;;
        zoo) modules="model_zoo ms_kfac" ;;
    esac
    # shellcheck disable=SC2086 # One argument per module.
    missing="$("$MS_KFAC_PYTHON" -c '
import sys
sys.path[:] = filter(None, sys.path)
from importlib.util import find_spec
print(*(name for name in sys.argv[1:] if find_spec(name) is None))
' $modules)" || fail "MS_KFAC_PYTHON=$MS_KFAC_PYTHON can't look for its packages."
    [[ -z "$missing" ]] || fail "MS_KFAC_PYTHON=$MS_KFAC_PYTHON lacks ${missing// /, }; install ms_kfac[$1]."
}

ensure_environment() {
    local extra="$1" stamp wanted
    if [[ -n "${MS_KFAC_PYTHON:-}" ]]; then
        suitable_python "$MS_KFAC_PYTHON" || fail "MS_KFAC_PYTHON=$MS_KFAC_PYTHON is not a Python from 3.9 to 3.12."
        check_modules "$extra"
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
    install_editable "$extra"
    check_mindspore
    "$VENV_PYTHON" -I -c 'from ms_kfac import kernels; print(*kernels.status().splitlines()[:2], sep="\n")' 2>/dev/null || true
    printf '%s\n' "$wanted" >"$stamp"
}

use_model_zoo() {
    ensure_environment zoo
    # For programs that MindSpore starts, with Python 3.11 and newer.
    export PYTHONSAFEPATH=1
}
