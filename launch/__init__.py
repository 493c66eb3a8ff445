"""The ``ssl-launch`` command: starts runs, here or on Slurm; imports nothing of training."""
