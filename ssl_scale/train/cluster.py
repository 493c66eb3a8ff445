"""Which process this is, from whoever started it: ``ssl-launch``, torchrun, Slurm, or nobody."""

import os

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment


def _read(*names: str, default: int) -> int:
    for name in names:
        if name in os.environ:
            return int(os.environ[name])
    return default


class LaunchEnvironment(ClusterEnvironment):
    """Reads RANK, WORLD_SIZE, LOCAL_RANK (launchers) or SLURM_PROCID and its kin (srun).

    Lightning's own Slurm environment would install its requeue handler, which saves inside the
    signal and deadlocks.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rank = _read("RANK", "SLURM_PROCID", default=0)
        self._world_size = _read("WORLD_SIZE", "SLURM_NTASKS", default=1)
        self._local_rank = _read("LOCAL_RANK", "SLURM_LOCALID", default=0)
        self.local_world_size = _read(
            "LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", default=self._world_size
        )

    @property
    def num_nodes(self) -> int:
        """How many hosts take part."""
        return max(1, self._world_size // self.local_world_size)

    @property
    def is_one_host(self) -> bool:
        """Whether the launcher has said that all processes share this host."""
        return _read("LOCAL_WORLD_SIZE", default=0) == self._world_size

    @property
    def creates_processes_externally(self) -> bool:
        """Always: this class never starts processes."""
        return True

    @property
    def main_address(self) -> str:
        """Host of rank 0."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Port of rank 0's rendezvous."""
        return _read("MASTER_PORT", default=29500)

    @staticmethod
    def detect() -> bool:
        """Chosen by hand, never detected."""
        return False

    def world_size(self) -> int:
        """All processes."""
        return self._world_size

    def set_world_size(self, size: int) -> None:
        """The launcher decides; Lightning's wish is not taken."""

    def global_rank(self) -> int:
        """This process among all."""
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        """The launcher decides; Lightning's wish is not taken."""

    def local_rank(self) -> int:
        """This process among those of its host."""
        return self._local_rank

    def node_rank(self) -> int:
        """This host among all."""
        return _read("NODE_RANK", "SLURM_NODEID", default=self._rank // self.local_world_size)
