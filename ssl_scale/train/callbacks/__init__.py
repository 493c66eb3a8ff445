"""What happens beside the step: records, checkpoints, progress, online probes."""
