"""Lightning and DeepSpeed around a system: strategy, checkpoints, records, callbacks, programs."""
