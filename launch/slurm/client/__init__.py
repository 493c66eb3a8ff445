"""Talking to Slurm: what it knows of jobs, how scripts are handed to it, and what is on record."""
