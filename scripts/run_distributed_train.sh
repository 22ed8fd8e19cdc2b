#!/usr/bin/env bash
# Sets up .venv on the first call, then trains on several devices of this machine, or on several machines, with
# MindSpore's msrun.
#
#   bash scripts/run_distributed_train.sh --worker-num 2                      ResNet-20 with K-FAC on digits
#   bash scripts/run_distributed_train.sh --worker-num 2 --recipe RECIPE ...  any recipe
#
#   --worker-num N          total number of processes, one per device; they divide each batch of the recipe evenly
#   --local-worker-num N    processes on this machine (default: all)
#   --node-rank N           index of this machine, from 0
#   --master-addr ADDRESS   the machine with node rank 0 (default: 127.0.0.1)
#   --master-port PORT      a port there (default: a free port; required with several machines)
#   --device NAME           CPU or GPU (default: CPU)
#   --recipe RECIPE         a YAML file, or a name that `ms-kfac-zoo recipes` lists
#   --resume FOLDER         continue the run in this folder, with the same number of processes
#   --output DIR            folder to write to (default: runs/RECIPE-TIME)
#   --log-dir DIR           folder of the workers' logs (default: logs in the output folder); those of earlier starts are
#                           kept in its folders 1, 2 and so on
#   --check                 check the options, the recipe and the number of processes, and start nothing
#
# All other options go to `ms-kfac-zoo train`. Once .venv exists, this lists them:
#
#   .venv/bin/ms-kfac-zoo train --help
#
# For several machines, start the script on each with the same --worker-num, --local-worker-num, --master-addr and
# --master-port, and a different --node-rank.
#
# The output of rank 0 appears here. If a worker fails, all others are terminated within seconds, and the exit status is
# that of the failed worker, or 128 and the number of the signal that ended it. Ctrl-C or SIGTERM lets the workers stop at
# the next step that is logged (--log-every) and write a checkpoint, if the run writes any; after a minute, or at a second
# signal, they are terminated. The workers on a machine divide its processors, unless OMP_NUM_THREADS or MS_KFAC_THREADS
# is set.
if [ -z "${BASH_VERSION:-}" ] || shopt -oq posix; then exec bash "$0" "$@"; fi # as in `sh scripts/...`
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/environment.sh"
help_if_asked "${BASH_SOURCE[0]}" "$@"

worker_num=""
local_worker_num=""
node_rank=""
master_addr="127.0.0.1"
master_port=""
device=""
recipe=""
resume=""
output=""
log_dir=""
check_only=""
passed_on=()

while (($#)); do
    case "$1" in
        --worker-num=* | --local-worker-num=* | --node-rank=* | --master-addr=* | --master-port=* | --device=* | --recipe=* | \
            --resume=* | --output=* | --log-dir=*)
            set -- "${1%%=*}" "${1#*=}" "${@:2}"
            ;;
    esac
    case "$1" in
        --worker-num | --local-worker-num | --node-rank | --master-addr | --master-port | --device | --recipe | \
            --resume | --output | --log-dir)
            (($# > 1)) || refuse "$1 needs a value."
            case "$1" in
                --worker-num) worker_num="$2" ;;
                --local-worker-num) local_worker_num="$2" ;;
                --node-rank) node_rank="$2" ;;
                --master-addr) master_addr="$2" ;;
                --master-port) master_port="$2" ;;
                --device) device="$2" ;;
                --recipe) recipe="$2" ;;
                --resume) resume="$2" ;;
                --output) output="$2" ;;
                --log-dir) log_dir="$2" ;;
            esac
            shift 2
            ;;
        --check)
            check_only=1
            shift
            ;;
        *)
            passed_on+=("$1")
            shift
            ;;
    esac
done

# VALUE LEAST MOST: whether VALUE is an integer in this range.
is_whole() {
    [[ "$1" =~ ^(0|[1-9][0-9]{0,8})$ ]] && (($1 >= $2 && $1 <= $3))
}

[[ -n "$worker_num" ]] || refuse "--worker-num is missing; see --help."
is_whole "$worker_num" 1 1000000 || refuse "--worker-num is $worker_num; accepted: an integer of at least 1."
local_worker_num="${local_worker_num:-$worker_num}"
if ! is_whole "$local_worker_num" 1 "$worker_num" || ((worker_num % local_worker_num)); then
    refuse "--local-worker-num is $local_worker_num; accepted: a divisor of --worker-num $worker_num."
fi
[[ -z "$device" || "$device" == CPU || "$device" == GPU ]] || refuse "--device is $device; accepted: CPU or GPU."
[[ -n "$recipe$resume" ]] || recipe=resnet/resnet20_digits_kfac
[[ -z "$resume" || -z "$output" ]] || refuse "--resume writes to the run's folder: it can't be combined with --output."
machines=$((worker_num / local_worker_num))
if ((machines > 1)); then
    [[ -n "$node_rank" && -n "$master_port" && "$master_addr" != 127.0.0.1 ]] ||
        refuse "$machines machines need --node-rank, --master-addr and --master-port."
fi
node_rank="${node_rank:-0}"
is_whole "$node_rank" 0 $((machines - 1)) ||
    refuse "--node-rank is $node_rank; accepted: an integer from 0 to $((machines - 1))."
if [[ -n "$master_port" ]]; then
    is_whole "$master_port" 1024 65535 ||
        refuse "--master-port is $master_port; accepted: an integer from 1024 to 65535."
fi

use_model_zoo
# msrun starts the workers as `python`.
PATH="$(dirname "$VENV_PYTHON"):$PATH"
export PATH
[[ "$(type -P python)" -ef "$VENV_PYTHON" ]] || fail "msrun needs a program named python next to $VENV_PYTHON."

MASTER_PORT='import sys
sys.path[:] = filter(None, sys.path)
from model_zoo.common.master_port import main
sys.exit(main())'
train=(-c "$ZOO_COMMAND" train --distributed)
[[ -z "$recipe" ]] || train+=(--recipe "$recipe")
[[ -z "$device" ]] || train+=(--device "$device")
if [[ -n "$resume" ]]; then
    output="$resume"
    train+=(--resume "$resume")
else
    name="${recipe##*/}"
    output="${output:-runs/${name%.*}-$(date +%Y%m%d-%H%M%S)}"
    train+=(--output "$output")
fi
train+=(${passed_on[@]+"${passed_on[@]}"})
# Errors that can be found without MindSpore are reported at once, and by one process.
MS_WORKER_NUM="$worker_num" "$VENV_PYTHON" "${train[@]}" --check
master_port="$("$VENV_PYTHON" -c "$MASTER_PORT" "$master_addr" "${master_port:-0}" "$machines")"
[[ -z "$check_only" ]] || exit 0

log_dir="${log_dir:-$output/logs}"
mkdir -p "$log_dir"
# The logs of an earlier start of the run.
logs=("$log_dir"/worker_[0-9]*.log "$log_dir/scheduler.log" "$log_dir/msrun.log")
for log in "${logs[@]}"; do
    [[ -f "$log" ]] || continue
    if [[ -z "${earlier:-}" ]]; then
        earlier=1
        while [[ -e "$log_dir/$earlier" ]]; do
            earlier=$((earlier + 1))
        done
        mkdir "$log_dir/$earlier"
    fi
    mv "$log" "$log_dir/$earlier/"
done

# nproc returns OMP_NUM_THREADS if it is set.
processors="$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)"
threads=$((processors > local_worker_num ? processors / local_worker_num : 1))
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$threads}"
export MS_KFAC_THREADS="${MS_KFAC_THREADS:-$threads}"
export PYTHONUNBUFFERED=1
# At MindSpore's default level (warnings), it logs a page about its connections.
export GLOG_v="${GLOG_v:-3}"

# mindspore.parallel.cluster.run, without the working folder, from which Python would import. A signal to the whole group
# of processes is not for msrun: it would kill the workers.
MSRUN='import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
sys.path[:] = filter(None, sys.path)
from mindspore.parallel.cluster.run import main
main()'
launch="$$-$(date +%s%N)"
# Workers have their own sessions and outlive msrun if it is killed, so they are identified by this mark. The search
# repeats, because msrun may start more workers in the meantime.
end_all_but() {
    local spared="$1" environment process found=1
    while ((found)); do
        found=0
        for environment in /proc/[0-9]*/environ; do
            process="${environment#/proc/}"
            process="${process%/environ}"
            if [[ "$process" != "$spared" ]] && grep -qsz "^MS_KFAC_LAUNCH=$launch\$" "$environment"; then
                found=1
                kill -KILL "$process" 2>/dev/null || true
            fi
        done
    done
}

# Who a process is: a rank, or "scheduler". Known while they live, because msrun tells only the number of a process.
declare -A role_of=()
find_processes() {
    local environment process variables stat parent session role rank environments
    ((${#role_of[@]} <= local_worker_num)) || return 0
    mapfile -t environments < <(grep -lsz "^MS_KFAC_LAUNCH=$launch\$" /proc/[0-9]*/environ)
    for environment in ${environments[@]+"${environments[@]}"}; do
        process="${environment//[^0-9]/}"
        # It may have ended in the meantime, or Ctrl-C ends the command here.
        variables="$(tr '\0' '\n' 2>/dev/null <"$environment")" || continue
        read -r stat 2>/dev/null <"/proc/$process/stat" || continue
        # Their children have the mark and the same variables.
        read -r _ parent _ session _ <<<"${stat##*) }"
        [[ "$parent" == "$msrun" ]] || continue
        role="$(sed -n 's/^MS_ROLE=//p' <<<"$variables")" || continue
        rank="$(sed -n 's/^RANK_ID=//p' <<<"$variables")" || continue
        case "$role" in
            MS_SCHED) role_of["$process"]=scheduler ;;
            # msrun also starts a tail for each worker, which has no session of its own.
            MS_WORKER) [[ "$session" != "$process" ]] || role_of["$process"]="$rank" ;;
        esac
    done
}

# STATUS: how a process ended, from the status as a shell has it.
ending_of() {
    local signal
    if (($1 > 128)) && signal="$(kill -l $(($1 - 128)) 2>/dev/null)"; then
        printf 'was ended by SIG%s' "$signal"
        [[ "$signal" != KILL ]] || printf ', as the system does when memory runs out'
    else
        printf 'ended with status %s' "$1"
    fi
}

# Sets scheduler_status if the scheduler has failed. Nothing else notices: workers go on looking for it. It waits for
# msrun as a zombie, whose last field is the status, in the form of wait.
scheduler_status=""
watch_scheduler() {
    local process state
    for process in "${!role_of[@]}"; do
        [[ "${role_of[$process]}" == scheduler ]] || continue
        read -r state 2>/dev/null <"/proc/$process/stat" || return 0
        [[ "$state" == *") Z "* ]] || return 0
        state="${state##* }"
        ((state == 0)) || scheduler_status=$((state & 127 ? 128 + (state & 127) : state >> 8))
    done
}

# SIGNAL STATUS: passes the first signal on to the workers, if all have started.
stopping=""
# shellcheck disable=SC2329  # traps call it
stop() {
    local process workers=()
    find_processes
    for process in "${!role_of[@]}"; do
        [[ "${role_of[$process]}" == scheduler ]] || workers+=("$process")
    done
    [[ -z "$stopping" ]] && ((${#workers[@]} == local_worker_num)) || exit "$2"
    stopping="$2"
    end_of_patience=$((SECONDS + 60))
    kill -s "$1" "${workers[@]}" 2>/dev/null || true
}

trap 'end_all_but none' EXIT
trap 'exit 129' HUP
trap 'stop INT 130' INT
trap 'stop TERM 143' TERM

first_rank=$((node_rank * local_worker_num))
echo "workers: $worker_num, $local_worker_num here from rank $first_rank on, at $master_addr:$master_port; their output: $log_dir"
MS_KFAC_LAUNCH="$launch" "$VENV_PYTHON" -c "$MSRUN" --worker_num "$worker_num" \
    --local_worker_num "$local_worker_num" --master_addr "$master_addr" --master_port "$master_port" --node_rank "$node_rank" \
    --log_dir "$log_dir" --join True python "${train[@]}" >"$log_dir/msrun.log" 2>&1 &
msrun=$!
# tail ends with msrun, after it has printed everything. The filtered line is noise that every worker logs at its end,
# whatever GLOG_v is.
(
    trap '' INT
    tail --pid="$msrun" -n +1 -F "$log_dir/worker_$first_rank.log" 2>/dev/null |
        { grep --line-buffered -v 'Event base dispatch success' || true; }
) &
printer=$!

# After a failure, msrun terminates the workers and then waits for half a minute until the scheduler notices.
while kill -0 "$msrun" 2>/dev/null; do
    find_processes
    if grep -qs 'exit with exception' "$log_dir/msrun.log"; then
        end_all_but "$msrun"
    else
        watch_scheduler
        [[ -z "$scheduler_status" ]] || end_all_but "$msrun"
    fi
    if [[ -n "$stopping" ]] && ((SECONDS > end_of_patience)); then
        echo "error: the workers did not stop within a minute and were ended" >&2
        exit "$stopping"
    fi
    # Ctrl-C ends it, too.
    sleep 0.5 || true
done
status=0
wait "$msrun" || status=$?
wait "$printer" || true
[[ -z "$stopping" ]] || exit "$stopping"
((status)) || exit 0

failure="$(sed -n 's/.*Worker process \([0-9]*\) exit with exception\. Error code: \(-\{0,1\}[0-9]*\).*/\1 \2/p' "$log_dir/msrun.log" | head -n 1)"
if [[ -n "$scheduler_status" ]]; then
    printf 'error: the scheduler %s; is port %s of %s in use by another program? See %s\n' \
        "$(ending_of "$scheduler_status")" "$master_port" "$master_addr" "$log_dir/scheduler.log" >&2
    status=1
elif [[ -n "$failure" ]]; then
    read -r process code <<<"$failure"
    status=$((code < 0 ? 128 - code : code))
    printf 'error: rank %s %s\n' "${role_of[$process]:-of process $process}" "$(ending_of "$status")" >&2
else
    ((status <= 128)) || printf 'error: msrun %s\n' "$(ending_of "$status")" >&2
    tail -n 3 "$log_dir/msrun.log" >&2
fi
for log in "$log_dir"/worker_*.log; do
    [[ "$log" != "$log_dir/worker_$first_rank.log" ]] || continue
    message="$(grep -E '^(error:|[A-Za-z_.]+(Error|Exception):)' "$log" | tail -n 1)" || continue
    printf '%s: %s\n' "$log" "$message" >&2
done
printf 'error: training failed; the logs are in %s\n' "$log_dir" >&2
exit "$status"
