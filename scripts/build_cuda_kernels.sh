#!/usr/bin/env bash
# Builds the kernels for NVIDIA GPUs into the package. Needs nvcc of CUDA 11.8 or newer and g++, but no GPU.
#
#   bash scripts/build_cuda_kernels.sh
#
#   --archs "80 90"    architectures to compile for (default: those of 70 75 80 86 89 90 that nvcc supports)
#   --output FILE      the library to write (default: ms_kfac/kernels/_cuda.so, where the package looks for it)
#   --build DIR        folder of objects and ptxas.log (default: build/cuda)
#   --jobs N           parallel compilers (default: one per processor)
#   --list             build nothing; print nvcc and the architectures
#
# nvcc is taken from $CUDA_HOME/bin, from PATH, or from the Python packages nvidia-cuda-nvcc and nvidia-cuda-runtime in
# .venv (or of python3 without .venv), in this order. The packages must be version 13 or newer: those for CUDA 11 and 12
# have no nvcc. nvcc reads $NVCC_PREPEND_FLAGS, such as "-ccbin g++-11" if it does not support a new g++. The GPU driver
# must support nvcc's CUDA version.
if [ -z "${BASH_VERSION:-}" ] || shopt -oq posix; then exec bash "$0" "$@"; fi # as in `sh scripts/...`
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/environment.sh"
help_if_asked "${BASH_SOURCE[0]}" "$@"

WANTED_ARCHITECTURES=(70 75 80 86 89 90)
KERNELS="$PROJECT_ROOT/ms_kfac/kernels"
output="$KERNELS/_cuda.so"
build="$PROJECT_ROOT/build/cuda"
jobs="$(nproc)"
asked=""
list=""

while (($#)); do
    case "$1" in
        --archs | --output | --build | --jobs)
            (($# > 1)) || refuse "$1 needs a value."
            case "$1" in
                --archs) asked="$2" ;;
                --output) output="$2" ;;
                --build) build="$2" ;;
                --jobs) jobs="$2" ;;
            esac
            shift 2
            ;;
        --list)
            list=1
            shift
            ;;
        *) refuse "unknown option $1; see --help." ;;
    esac
done
[[ "$jobs" =~ ^[1-9][0-9]*$ ]] || refuse "--jobs must be a positive number, got $jobs."

python="$VENV_PYTHON"
[[ -x "$python" ]] || python="$(command -v python3)" || fail "no python3 was found."

find_nvcc() {
    local candidate
    if [[ -x "${CUDA_HOME:-}/bin/nvcc" ]]; then
        printf '%s\n' "$CUDA_HOME/bin/nvcc"
        return
    fi
    if command -v nvcc; then
        return
    fi
    while IFS= read -r candidate; do
        if [[ -x "$candidate" ]]; then
            printf '%s\n' "$candidate"
            return
        fi
    done < <("$python" -c '
import sys
sys.path[:] = filter(None, sys.path)
import glob, importlib.util
package = importlib.util.find_spec("nvidia")
for folder in package.submodule_search_locations if package else ():
    print(*sorted(glob.glob(folder + "/cu*/bin/nvcc"), reverse=True), sep="\n")
')
    fail "no nvcc was found: set CUDA_HOME, or install CUDA's compiler; see --help for the search order."
}

# Sets architectures: the requested ones, or those of our list that nvcc supports.
choose_architectures() {
    local known architecture
    known=" $("$nvcc" --list-gpu-code | tr '\n' ' ')" || fail "$nvcc does not answer --list-gpu-code."
    architectures=()
    if [[ -n "$asked" ]]; then
        for architecture in $asked; do
            [[ "$known" == *" sm_$architecture "* ]] ||
                fail "--archs must be numbers of which $nvcc knows sm_NUMBER, got $architecture; it knows$known"
            architectures+=("$architecture")
        done
    else
        for architecture in "${WANTED_ARCHITECTURES[@]}"; do
            [[ "$known" == *" sm_$architecture "* ]] && architectures+=("$architecture")
        done
    fi
    ((${#architectures[@]})) || fail "$nvcc knows none of sm_${WANTED_ARCHITECTURES[*]}."
    mapfile -t architectures < <(printf '%s\n' "${architectures[@]}" | sort -nu)
}

object_of() {
    local name="${1#"$KERNELS/"}"
    printf '%s\n' "$build/${name//\//.}.o"
}

compile() {
    local object
    object="$(object_of "$1")"
    "$nvcc" "${flags[@]}" -c "$1" -o "$object" >"$object.log" 2>&1
}

nvcc="$(find_nvcc)" || exit 1
choose_architectures
if [[ -n "$list" ]]; then
    printf '%s\n' "$nvcc" "${architectures[*]}"
    exit
fi

mapfile -t sources < <(find "$KERNELS/cuda" "$KERNELS/interface" \( -name '*.cu' -o -name '*.cc' \) -type f | sort)
fingerprint="$("$python" -I -c '
import pathlib, runpy, sys
print(runpy.run_path(sys.argv[1])["fingerprint"](*map(pathlib.Path, sys.argv[2:])))
' "$KERNELS/fingerprint.py" "$KERNELS/interface" "$KERNELS/cuda")"

((${#sources[@]})) || fail "there are no sources in $KERNELS/cuda."

# -x cu also for .cc files, because the kernels' headers are CUDA code.
flags=(-x cu -std=c++17 -O3 -Xcompiler "-fPIC,-Wall" -Xptxas -v -Wno-deprecated-gpu-targets
    # MindSpore's binaries use the old std::string ABI.
    -D_GLIBCXX_USE_CXX11_ABI=0
    "-DMS_KFAC_SOURCES=\"$fingerprint\"" "-DMS_KFAC_ARCHITECTURES=\"${architectures[*]}\"")
for architecture in "${architectures[@]}"; do
    flags+=(-gencode "arch=compute_$architecture,code=sm_$architecture")
done
ptx="arch=compute_${architectures[-1]},code=compute_${architectures[-1]}"
flags+=(-gencode "$ptx")

echo "Compiling ${#sources[@]} files with $nvcc for sm_${architectures[*]}"
mkdir -p "$build" "$(dirname "$output")"
rm -f "$build"/*.o "$build"/*.o.log
for source in "${sources[@]}"; do
    while (($(jobs -pr | wc -l) >= jobs)); do
        wait -n || true
    done
    compile "$source" &
done
wait

log="$build/ptxas.log"
: >"$log"
objects=()
failed=0
for source in "${sources[@]}"; do
    object="$(object_of "$source")"
    { echo "== ${source#"$KERNELS/"}" && cat "$object.log"; } >>"$log"
    objects+=("$object")
    if [[ ! -f "$object" ]]; then
        cat "$object.log" >&2
        failed=1
    fi
done
((!failed)) || fail "nvcc could not compile every file; see its messages above."
grep -i 'warning' "$log" >&2 || true

# Only functions with these names are exported. The rest, including CUDA's runtime, must not clash with functions of the
# same name in other libraries of the process.
printf '{ global: [A-Z]*; ms_kfac_*; local: *; };\n' >"$build/exported.map"
toolkit="$(dirname "$(dirname "$(readlink -f "$nvcc")")")"
"$nvcc" -shared -cudart static -gencode "$ptx" "-L$toolkit/lib" -Xlinker "--version-script=$build/exported.map" \
    -Xlinker --no-undefined -o "$output.new" "${objects[@]}" || fail "nvcc could not link $output."
mv "$output.new" "$output"
echo "Built $output; registers and spills: python -m benchmarks.gpu.registers $log"
