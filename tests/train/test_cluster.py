"""What a process learns of its place from whoever started it."""

import pytest

from ssl_scale.train.cluster import LaunchEnvironment

NAMES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS",
    "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE",
)  # fmt: skip


def place(patch: pytest.MonkeyPatch, **variables: str) -> LaunchEnvironment:
    for name in NAMES:
        patch.delenv(name, raising=False)
    for name, value in variables.items():
        patch.setenv(name, value)
    return LaunchEnvironment()


def test_ranks_share_a_host_only_if_their_launcher_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place(monkeypatch, WORLD_SIZE="4", LOCAL_WORLD_SIZE="4").is_one_host
    assert not place(monkeypatch, WORLD_SIZE="4", LOCAL_WORLD_SIZE="2").is_one_host
    # srun tells the tasks of a node only where they were asked for so.
    assert not place(monkeypatch, SLURM_NTASKS="4").is_one_host
    assert not place(monkeypatch).is_one_host
