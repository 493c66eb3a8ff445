"""Jobs on a Slurm cluster: a cluster to rehearse on, what is submitted, and what is on record.

Talks to Slurm by its commands, without a shell; knows of training only the files in a run's folder.
"""
