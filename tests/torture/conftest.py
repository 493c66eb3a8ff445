"""The private Slurm cluster is for these tests, too."""

from tests.launch.slurm.conftest import cluster

__all__ = ["cluster"]
