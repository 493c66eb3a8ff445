"""Start a private Slurm cluster of virtual nodes on this machine, to rehearse submissions on.

Everything of it lies below one folder, and it listens on loopback only; another Slurm of the host
is not touched. Its nodes share this machine's CPUs and have no GPUs.
"""

import argparse
import os
import shlex
import sys
import tempfile
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .slurm.sandbox.cluster import SandboxCluster

EXAMPLES = """examples:
  eval "$(ssl-launch sandbox up)"            two nodes; this shell's sbatch and squeue use them
  ssl-launch submit demo --nodes 2 --processes-per-node 1 --time 10
  ssl-launch sandbox up --nodes 4 --folder /tmp/mine
  ssl-launch sandbox down
"""
MOST_NODES = 64


def default_folder() -> Path:
    """Where a user's sandbox lies unless told."""
    return Path(tempfile.gettempdir()) / f"ssl-launch-sandbox-{os.getuid()}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("action", choices=("up", "down"), help="start it, or end all of it")
    parser.add_argument("--nodes", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument(
        "--folder", type=Path, default=default_folder(), metavar="F", help="default: %(default)s"
    )


def run(arguments: argparse.Namespace) -> int:
    """Start or end the cluster; returns the exit code."""
    if not 1 <= arguments.nodes <= MOST_NODES:
        raise SslScaleError(f"--nodes must be from 1 to {MOST_NODES}, but is {arguments.nodes}")
    cluster = SandboxCluster(arguments.folder)
    return up(cluster, arguments.nodes) if arguments.action == "up" else down(cluster)


def up(cluster: SandboxCluster, nodes: int) -> int:
    """Start the cluster; standard output is what a shell evaluates to use it."""
    cluster.up(nodes)
    folder = shlex.quote(str(cluster.layout.folder))
    tell(f"{nodes} nodes take jobs; end them: ssl-launch sandbox down --folder {folder}")
    print(f"export SLURM_CONF={shlex.quote(str(cluster.layout.configuration))}")
    return 0


def down(cluster: SandboxCluster) -> int:
    """End the cluster and say what remains."""
    remaining = cluster.down()
    for process in remaining:
        tell(f"could not be ended: {process}")
    tell(
        f"{'ended as far as it could be' if remaining else 'nothing of it runs'}; its logs are in "
        f"{cluster.layout.logs}"
    )
    return 1 if remaining else 0


def tell(text: str) -> None:
    """Say something beside what a shell evaluates."""
    print(f"ssl-launch: {text}", file=sys.stderr)
