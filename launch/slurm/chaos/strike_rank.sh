# Signals one rank's program, from a task on its host. Arguments: job, step, rank, signal. Says which
# process on which host; on the hosts of other ranks there is nothing to signal, and nothing is said.
marks=("SLURM_JOB_ID=$1" "SLURM_STEP_ID=$2" "SLURM_PROCID=$3" "SLURMD_NODENAME=$SLURMD_NODENAME")
# Private clusters of one machine share its processes, and number their jobs alike.
[[ -z ${SLURM_CONF:-} ]] || marks+=("SLURM_CONF=$SLURM_CONF")
declare -A parent
for entry in /proc/[0-9]*; do
    found=$(grep -zcxF "${marks[@]/#/-e}" "$entry/environ")
    [[ $found == "${#marks[@]}" ]] || continue
    stat=$(<"$entry/stat")
    read -r -a fields <<<"${stat##*) }"
    parent[${entry##*/}]=${fields[1]}
done 2>/dev/null
# The wrapper came first; its child is the program, and what that started lives or dies by itself.
for process in "${!parent[@]}"; do
    wrapper=${parent[$process]}
    [[ -n ${parent[$wrapper]:-} && -z ${parent[${parent[$wrapper]}]:-} ]] || continue
    kill -s "$4" "$process" && echo "$SLURMD_NODENAME, process $process"
done
