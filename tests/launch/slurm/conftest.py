"""A private Slurm cluster for the tests that are marked slurm."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssl_scale_launch.slurm.client.packages import how_to_install, missing_packages
from ssl_scale_launch.slurm.sandbox.cluster import SandboxCluster

from tests.launch.slurm.submitted import Submitted, submit
from tests.train.tiny import make_recipe


def require_slurm() -> None:
    """Skip where Slurm is not installed; where CI is true, fail."""
    if not (missing := missing_packages(os.environ)):
        return
    message = f"tests on a Slurm cluster: {how_to_install(missing)}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def cluster() -> Iterator[SandboxCluster]:
    """Two virtual nodes."""
    require_slurm()
    # pytest's own folders lie too deep for the path of a socket.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    made = SandboxCluster(folder)
    try:
        made.up(nodes=2)
        yield made
    finally:
        assert made.down() == []
        shutil.rmtree(folder)


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A place for a sandbox that a test starts itself."""
    require_slurm()
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    yield folder
    SandboxCluster(folder).down()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def make_cluster() -> Iterator[Callable[[int], SandboxCluster]]:
    """Starts clusters of as many nodes as asked."""
    require_slurm()
    made: list[SandboxCluster] = []

    def make(nodes: int) -> SandboxCluster:
        made.append(SandboxCluster(Path(tempfile.mkdtemp(prefix="slurm-"))))
        made[-1].up(nodes)
        return made[-1]

    yield make
    for cluster in made:
        assert cluster.down() == []
        shutil.rmtree(cluster.layout.folder)


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny recipe."""
    return make_recipe(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def undisturbed(
    cluster: SandboxCluster, recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> Submitted:
    """A run of it that nothing happened to; to be looked at only."""
    run = submit(cluster, recipe, tmp_path_factory.mktemp("undisturbed") / "run")
    run.must_complete()
    return run
