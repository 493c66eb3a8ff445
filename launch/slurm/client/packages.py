"""Which programs a private Slurm cluster needs, and the Debian packages that bring them."""

import os
import shutil
from collections.abc import Mapping, Sequence

from ssl_scale.errors import SslScaleError

SERVERS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd"}
CLIENTS = ("sbatch", "srun", "scontrol", "squeue", "scancel")
# Debian keeps servers where a user's path does not lead.
SYSTEM_PATHS = ("/usr/sbin", "/sbin", "/usr/local/sbin")


def search_path(environment: Mapping[str, str]) -> str:
    """Where programs are looked for: the user's path, then where servers lie."""
    return os.pathsep.join((environment.get("PATH", os.defpath), *SYSTEM_PATHS))


def missing_packages(environment: Mapping[str, str]) -> list[str]:
    """The Debian packages that must be installed; none where everything is there."""
    path = search_path(environment)
    needed = {**SERVERS, **dict.fromkeys(CLIENTS, "slurm-client")}
    missing = [
        package for program, package in needed.items() if not shutil.which(program, path=path)
    ]
    return sorted(set(missing))


def require_packages(environment: Mapping[str, str]) -> None:
    """Find everything that a sandbox needs.

    Raises:
        SslScaleError: something is missing; says how to install it.
    """
    if missing := missing_packages(environment):
        raise SslScaleError(
            f"a sandbox needs Slurm's servers and commands, but {how_to_install(missing)}"
        )


def how_to_install(missing: Sequence[str]) -> str:
    """What is missing, and the command that installs it on Debian or Ubuntu."""
    names = " ".join(missing)
    return (
        f"these packages are missing: {names}; install them: sudo apt-get install "
        f"--no-install-recommends {names}"
    )


def require_clients(environment: Mapping[str, str] = os.environ) -> None:
    """Find Slurm's commands.

    Raises:
        SslScaleError: this machine has none.
    """
    path = search_path(environment)
    if absent := [program for program in CLIENTS if not shutil.which(program, path=path)]:
        raise SslScaleError(
            f"{', '.join(absent)} must be on the path, but is not: submit from a login node of the "
            "cluster, or rehearse on a private one (ssl-launch sandbox up --help)"
        )
