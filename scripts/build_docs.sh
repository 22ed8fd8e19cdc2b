#!/usr/bin/env bash
# Sets up .venv on the first call, then builds the documentation into build/site. A broken link, a page that
# the navigation lacks, or an unknown object fails the build. The sources are parsed, not imported.
#
#   bash scripts/build_docs.sh
#   bash scripts/build_docs.sh --serve    shows it on http://127.0.0.1:8000 and follows changes
#
# With MS_KFAC_PYTHON it uses the interpreter that it names, which needs the packages of the extra docs
# alone: neither MindSpore nor this package.
if [ -z "${BASH_VERSION:-}" ] || shopt -oq posix; then exec bash "$0" "$@"; fi # as in `sh scripts/...`
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/environment.sh"
help_if_asked "${BASH_SOURCE[0]}" "$@"

# MkDocs 1 is what the theme is made for; its note on a successor would be in every log.
export NO_MKDOCS_2_WARNING=1

case "$*" in
    "") command=(build --strict --quiet) ;;
    --serve) command=(serve) ;;
    *) refuse "unknown options $*; see --help." ;;
esac

ensure_environment docs
cd "$PROJECT_ROOT"
"$VENV_PYTHON" -m mkdocs "${command[@]}"
if [[ "${command[0]}" == build ]]; then
    echo "Built build/site/index.html"
fi
