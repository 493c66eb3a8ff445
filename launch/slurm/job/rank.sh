# One rank, between Slurm and the program. Arguments: a folder, then the program and its arguments.
# Slurm signals every process of a task: the program acts on it, this shell waits on. How the program
# ended is left in the folder, as a name, for which a full disk has room; "stopped and saved" counts
# as an end without fault, or the first rank to stop would have srun kill the others.
trap : USR1 TERM INT
ends=$1
shift
# By this line whoever reads the log tells one start from another.
printf '== %s rank %s on %s: job %s, restart %s\n' "$(date '+%F %T')" "$SLURM_PROCID" \
    "${SLURMD_NODENAME:-$(hostname)}" \
    "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}" \
    "${SLURM_RESTART_COUNT:-0}"
"$@" </dev/null
code=$?
if ((code != 0)); then
    # Unheard, "stopped and saved" would pass for "done".
    : >"$ends/$(date +%s.%N) $code $SLURM_PROCID ${SLURMD_NODENAME:-$(hostname)}" &&
        ((code == stopped_code)) && code=0
fi
exit "$code"
