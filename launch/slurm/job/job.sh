# ---- From here on, the same in every job ---------------------------------------------------------
# Until there are ranks to pass it on to, a signal must not end this script, nor be forgotten.
early=
trap 'early=USR1' USR1
trap 'early=TERM' TERM
# Variables of the shell that submitted must not pass for ours.
meeting='' step='' asked_at='' bad_nodes='' code=1
export SLURM_EXPORT_ENV=ALL # with --export=NONE the ranks would not see what is set here
stopped_code=75 # the program was asked to stop, and has saved
stuck_code=70   # a step did not end (train.stuck_after_s)
restarts=$launch_folder/restarts
ends=$launch_folder/ends-$SLURM_JOB_ID
# The last task of an array has the number of the whole array, so that a task is told its own name.
job_name=${1:-$SLURM_JOB_ID}

say() { printf 'ssl-launch: %s: %s\n' "$(date '+%F %T')" "$*" >&2; }

# The step of the newest finished checkpoint; 0 if there is none.
newest_step() {
    local newest=0 commit
    for commit in "$run_folder"/checkpoints/step-*/COMMIT; do
        if [[ $commit =~ /step-([0-9]{9})/COMMIT$ ]] && ((10#${BASH_REMATCH[1]} > newest)); then
            newest=$((10#${BASH_REMATCH[1]}))
        fi
    done
    echo "$newest"
}

# How many starts of this job in a row began where the one before began. Kept as what a link names,
# for which a full disk has room.
count_stalled() {
    local job=- step=-1 count=0
    if [[ $(readlink -- "$restarts") =~ ^([0-9]+)\ ([0-9]+)\ ([0-9]+)$ ]]; then
        job=${BASH_REMATCH[1]} step=$((10#${BASH_REMATCH[2]})) count=$((10#${BASH_REMATCH[3]}))
    fi
    began_at=$(newest_step)
    stalled=0
    if [[ $job == "$SLURM_JOB_ID" ]] && ((began_at <= step)); then
        stalled=$((count + 1))
    fi
    if ! ln -sfT -- "$SLURM_JOB_ID $began_at $stalled" "$restarts"; then
        say "$(free_space)"
        stalled=${SLURM_RESTART_COUNT:-0} # Slurm counts them all, so that there is an end to it
    fi
}

free_space() { df -Ph -- "$run_folder" | awk 'NR == 2 { print $4 " are free on the disk mounted at " $6 }'; }

# Whether a file is there, or appears soon: on NFS a host may see another's a while later.
comes_to_be() {
    local tries
    for ((tries = 0; tries < 5; tries++)); do
        [[ ! -e $1 ]] || return 0
        sleep 4
    done
    return 1
}

# A run that starts from what others have learned must not begin before they are done; once it has a
# checkpoint, it needs them no more.
require_earlier() {
    local folder
    ((began_at == 0)) || return
    for folder in "${earlier[@]}"; do
        if ! comes_to_be "$folder/COMPLETED"; then
            say "this run starts from $folder, which must be completed, but is not; resume it first," \
                "then this one: ssl-launch resume"
            exit 2
        fi
    done
}

give_up() {
    say "$1 starts in a row brought no new checkpoint beyond step $(newest_step), so the job is not" \
        "started again (--max-restarts); mend what its log tells, and submit it again"
}

# Ranks on one host meet at a file, so that nothing listens; on several, at the first host's port.
name_meeting_point() {
    unset SSL_SCALE_RENDEZVOUS
    if ((SLURM_JOB_NUM_NODES == 1)); then
        meeting=$(mktemp -d "${TMPDIR:-/tmp}/ssl-launch.XXXXXXXX") || start_again
        export SSL_SCALE_RENDEZVOUS=file://$meeting/rendezvous
        export MASTER_ADDR=127.0.0.1
    else
        local first address
        first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
        address=$(scontrol show node --oneliner "$first" | grep -o ' NodeAddr=[^ ]*')
        export MASTER_ADDR=${address#*=}
        : "${MASTER_ADDR:=$first}"
    fi
    # Another cluster's job on the same host may have the same number, as in a sandbox.
    local cluster
    cluster=$(cksum <<<"${SLURM_CLUSTER_NAME:-} ${SLURM_CONF:-}")
    export MASTER_PORT=$((15000 + (${cluster%% *} + SLURM_JOB_ID + 101 * ${SLURM_RESTART_COUNT:-0}) % 15000))
    # This script runs on the first host.
    while (exec 3<>"/dev/tcp/127.0.0.1/$MASTER_PORT") 2>/dev/null; do
        MASTER_PORT=$((15000 + (MASTER_PORT - 15000 + 1) % 15000))
    done
    if [[ $MASTER_ADDR == 127.* ]]; then
        export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-lo}
    fi
}

# Start one task a rank and wait for all of them; sets `code`.
run_ranks() {
    rm -rf -- "$ends" "$run_folder/heartbeats/waited-for"
    mkdir -p -- "$ends" || start_again
    # srun knows patterns such as %t.
    srun --kill-on-bad-exit=1 --open-mode=append --output="${run_folder//%/%%}/logs/rank-%t.log" \
        ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"} "${srun_options[@]}" \
        bash -c "stopped_code=$stopped_code; $rank_script" rank "$ends" "${program[@]}" &
    step=$!
    [[ -z $early ]] || pass "$early"
    wait "$step"
    code=$?
    # A signal ends the waiting, not the ranks.
    while kill -0 "$step" 2>/dev/null; do
        wait "$step"
        code=$?
    done
    wait "$step" 2>/dev/null
    local again=$?
    ((again == 127)) || code=$again
    [[ -z ${meeting:-} ]] || rm -rf -- "$meeting"
}

pass() {
    if [[ -z $step ]]; then
        early=$1
        return
    fi
    # Told again, a rank would end at once; Slurm tells more than once.
    [[ -z $asked_at ]] || return
    say "$1: asking the ranks to save and stop"
    asked_at=$SECONDS
    # srun passes USR1 on, but told TERM it kills the ranks at once.
    kill -s USR1 "$step" 2>/dev/null
}

# Nodes of this job that Slurm hears nothing of, or has given up.
silent_nodes() {
    sinfo --noheader --Node --nodes="$SLURM_JOB_NODELIST" --format='%N %T' 2>/dev/null |
        awk '$2 ~ /^(down|fail)|\*$/ { print $1 }' | sort -u
}

# What the ranks left tells more than srun's code, the highest of all of them: who failed first. That
# may only have noticed another's fault: of a node that is gone, or a rank that all wait for.
judge_end() {
    local first culprit silent
    first=$(ls -- "$ends" 2>/dev/null | grep -v "^[0-9.]* $stopped_code " | LC_ALL=C sort -n | head -n 1)
    if [[ $first =~ ^[0-9.]+\ (138|143)\  || -z $first && -n $asked_at && $code == 1[34][38] ]]; then
        code=${BASH_REMATCH[1]:-$code}
        say "the ranks were told to stop before they had begun to train"
        rm -f -- "$restarts" # that is no start without success
        stalled=-1
    elif [[ $first =~ ^[0-9.]+\ ([0-9]+)\ ([0-9]+)\ (.*)$ ]]; then
        code=${BASH_REMATCH[1]} bad_nodes=${BASH_REMATCH[3]}
        say "rank ${BASH_REMATCH[2]} on $bad_nodes failed first, with exit code $code; its output:" \
            "$run_folder/logs/rank-${BASH_REMATCH[2]}.log"
        culprit=$(head -n 1 -- "$run_folder/heartbeats/waited-for" 2>/dev/null)
        if ((code == stuck_code)) && [[ $culprit =~ ^([0-9]+)\ ([A-Za-z0-9._-]+)$ ]]; then
            bad_nodes=${BASH_REMATCH[2]}
            say "it was stuck: the others waited for rank ${BASH_REMATCH[1]} on $bad_nodes; stacks:" \
                "$run_folder/logs/stuck-rank-*.txt"
        fi
        say "$(free_space)"
    elif ((code == 0)) && [[ -n $(ls -A -- "$ends") ]]; then
        code=$stopped_code
        say "the ranks have stopped after step $(newest_step), saved"
        [[ -z $asked_at ]] || echo "$((SECONDS - asked_at))" >>"$launch_folder/stop_seconds"
    elif ((code == 0)) && ! comes_to_be "$run_folder/COMPLETED"; then
        code=1
        say "the ranks ended without an error, but the run is not completed"
    fi
    if ((code != 0 && code != stopped_code)) && silent=$(silent_nodes) && [[ -n $silent ]]; then
        bad_nodes=${silent//$'\n'/,}
        say "Slurm hears nothing of $bad_nodes, so that the fault lies there"
    fi
    rm -rf -- "$ends"
}

# A controller that is being restarted answers some seconds later; one that refuses will not change
# its mind.
ask_controller() {
    local tries errors
    for ((tries = 0; tries < 60; tries++)); do
        { errors=$(scontrol "$@" 2>&1 >&3); } 3>&1 && return
        say "scontrol $1: $errors"
        [[ ! $errors =~ [Ii]nvalid|[Dd]enied|permi|disabled|already|pending ]] || return 1
        sleep 5
    done
    return 1
}

# Slurm takes a list that leaves too few, and has the job wait for ever.
are_enough_without() {
    local left
    left=$(sinfo --noheader --Node --partition="$SLURM_JOB_PARTITION" --format='%N %T' |
        awk '$2 !~ /^(down|drain|fail|maint|unk)/ { print $1 }' | sort -u |
        grep -cvxFf <(scontrol show hostnames "$1"))
    ((left >= SLURM_JOB_NUM_NODES))
}

# In the queue, not before: a running job's list of excluded nodes cannot be changed.
leave_out_bad_nodes() {
    local before
    [[ -n $bad_nodes && $exclude_failed == 1 ]] || return
    before=$(grep -o ' ExcNodeList=[^ ]*' <<<"$told")
    before=${before#*=}
    [[ $before == "(null)" ]] || bad_nodes=$before,$bad_nodes
    if ! are_enough_without "$bad_nodes"; then
        say "goes on with $bad_nodes, since too few nodes would be left"
    elif scontrol update "JobId=$job_name" "ExcNodeList=$bad_nodes"; then
        say "from now on without $bad_nodes (--exclude-failed)"
    fi
}

end_if_cancelled() {
    [[ -e $launch_folder/cancel-$job_name ]] || return
    say "cancelled, so the job is not started again"
    scancel "$job_name"
    exit "$code"
}

# Back to the queue; only this script does so, no rank.
start_again() {
    local next=0 told state delay
    end_if_cancelled
    (($(newest_step) > began_at)) || next=$((stalled + 1))
    if ((next > max_restarts)); then
        give_up "$next"
        exit "$code"
    fi
    # Somebody who cancels a job does not want it back.
    if ! told=$(ask_controller show job --oneliner "$job_name"); then
        say "Slurm does not tell how the job is, so it is not started again from here"
        exit "$code"
    fi
    state=$(grep -o ' JobState=[A-Z_]*' <<<"$told")
    if [[ $state != " JobState=RUNNING" ]]; then
        say "the job is ${state#*=}, so it is not started again from here"
        exit "$code"
    fi
    end_if_cancelled # it may have taken minutes until Slurm answered
    ask_controller requeue "$job_name" || exit "$code"
    leave_out_bad_nodes
    if ((next > 0)); then
        delay=$((backoff_s * 2 ** (next < 8 ? next - 1 : 7)))
        say "no new checkpoint since step $began_at; start $next of at most $max_restarts in $delay s"
        scontrol update "JobId=$job_name" "StartTime=now+${delay}seconds"
    fi
    exit "$code"
}

mkdir -p -- "$launch_folder" "$run_folder/logs"
count_stalled
end_if_cancelled
if ((stalled > max_restarts)); then
    give_up "$stalled"
    exit 1
fi
require_earlier
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
name_meeting_point
trap 'pass USR1' USR1
trap 'pass TERM' TERM
say "job $job_name, restart ${SLURM_RESTART_COUNT:-0}, on $SLURM_JOB_NODELIST: $SLURM_NTASKS ranks" \
    "from step $began_at on"
run_ranks
trap '' USR1 TERM # Slurm signals the commands that follow, too
judge_end
case $code in
0) say "completed" ;;
2 | 3) say "to start again would not help" ;; # a mistake in the recipe or its data
*) start_again ;;
esac
exit "$code"
