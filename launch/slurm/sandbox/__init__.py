"""A private Slurm cluster of virtual nodes on this machine."""
