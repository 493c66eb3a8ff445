"""The batch script of a run: a head with what is special to it, and a body that all runs share.

Every value in the head is quoted for the shell, or, in Slurm's own lines, made of harmless letters
only: the body (job.sh) and the ranks' wrapper (rank.sh) are never edited, so nothing that a user
gives can become a command.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .profile import Container

_HARMLESS = re.compile(r"[A-Za-z0-9_.,:=+@/-]+")
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Job:
    """What a script is made of.

    Args:
        run_folder: an absolute path.
        program: ``ssl-scale`` and its arguments, as a rank runs it.
        nodes: hosts.
        processes_per_node: ranks on each.
        gpus: of each host; 0 where there are none.
        gpu_option: how the cluster is asked for them.
        time: of the job at most, as Slurm writes it.
        stop_before_s: how long before its end the ranks are told to save and stop.
        partition: the queue.
        account: who pays.
        cpus_per_task: CPUs of every rank.
        modules: loaded first.
        variables: of the ranks.
        tools: a folder that is put first on the path.
        container: where the ranks run.
        max_restarts: starts in a row without a new checkpoint, until the job is given up.
        backoff_s: before the first of these; each further one waits twice as long.
        exclude_failed: whether nodes that were at fault are left out when it is started again.
        earlier: folders of runs that must be completed before this one begins.
    """

    run_folder: Path
    program: tuple[str, ...]
    nodes: int
    processes_per_node: int
    gpus: int
    gpu_option: str
    time: str
    stop_before_s: int
    partition: str | None
    account: str | None
    cpus_per_task: int | None
    modules: tuple[str, ...]
    variables: Mapping[str, str]
    tools: Path | None
    container: Container | None
    max_restarts: int
    backoff_s: int
    exclude_failed: bool = False
    earlier: tuple[Path, ...] = ()


def render(job: Job) -> str:
    """The script's text."""
    require_nameable(job.run_folder)
    if job.container is not None:
        _require_mountable(job.run_folder)
    return "\n".join(
        [
            "#!/bin/bash",
            "# Made by ssl-launch submit. Trains until the run is done: told to stop, by the time",
            "# limit or by a preemption, it saves and goes back to the queue.",
            *directives(job),
            "",
            f"run_folder={shlex.quote(str(job.run_folder))}",
            "launch_folder=$run_folder/launch",
            f"max_restarts={job.max_restarts}",
            f"backoff_s={job.backoff_s}",
            f"exclude_failed={int(job.exclude_failed)}",
            *_array("earlier", [str(folder) for folder in job.earlier]),
            *_array("program", [*_apptainer(job), *job.program]),
            *_array("srun_options", _pyxis(job)),
            *_environment(job),
            "",
            "IFS= read -r -d '' rank_script <<'END_OF_RANK_SCRIPT'",
            (_HERE / "rank.sh").read_text() + "END_OF_RANK_SCRIPT",
            "",
            (_HERE / "job.sh").read_text(),
        ]
    )


def require_nameable(run_folder: Path) -> None:
    """Refuse a folder whose name cannot stand in a script and in options of sbatch."""
    folder = str(run_folder)
    # Slurm takes a backslash in a file's name for a sign not to look for patterns.
    if not folder.isprintable() or "\\" in folder:
        raise SslScaleError(
            f"the run's folder must have a printable name without backslashes, but is {folder!r}; "
            "choose another --name or --run-folder"
        )


def _require_mountable(run_folder: Path) -> None:
    if any(letter in str(run_folder) for letter in ",:"):  # what runtimes part mounts with
        raise SslScaleError(
            f"the run's folder must have no comma and no colon in its name, since a container "
            f"mounts it, but is {str(run_folder)!r}; choose another --name or --run-folder"
        )


def directives(job: Job) -> list[str]:
    """The lines that Slurm reads."""
    options: dict[str, str | int | None] = {
        "nodes": job.nodes,
        "ntasks-per-node": job.processes_per_node,
        "cpus-per-task": job.cpus_per_task,
        "time": job.time,
        "partition": job.partition,
        "account": job.account,
        "signal": f"B:USR1@{job.stop_before_s}",
        "open-mode": "append",
    }
    if job.gpus and job.gpu_option != "none":
        is_gres = job.gpu_option == "gres"
        options[job.gpu_option] = f"gpu:{job.gpus}" if is_gres else job.gpus
    lines = [
        f"#SBATCH --{name}={harmless(f'--{name}', str(value))}"
        for name, value in options.items()
        if value is not None
    ]
    return [*lines, "#SBATCH --requeue"]


def harmless(name: str, value: str) -> str:
    """A value for one of Slurm's own lines, which know no quotes.

    Raises:
        SslScaleError: it has letters that could end the line or mean something to Slurm.
    """
    if not _HARMLESS.fullmatch(value):
        raise SslScaleError(
            f"{name} must be made of letters, digits and _.,:=+@/- alone, but is {value!r}"
        )
    return value


def _array(name: str, words: Sequence[str]) -> list[str]:
    return [f"{name}=(", *(f"    {shlex.quote(word)}" for word in words), ")"]


def _environment(job: Job) -> list[str]:
    lines = []
    if job.modules:
        lines.append("command -v module >/dev/null || source /etc/profile")
        lines += [f"module load {shlex.quote(name)} || exit 1" for name in job.modules]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in job.variables.items()]
    if job.tools is not None:
        lines.append(f'export PATH={shlex.quote(str(job.tools))}:"$PATH"')
    return lines


def _apptainer(job: Job) -> list[str]:
    container = job.container
    if container is None or container.runtime != "apptainer":
        return []
    gpus = ["--nv"] if job.gpus else []
    seen = (*container.mounts, *map(str, job.earlier), str(job.run_folder))
    mounts = [f"--bind={mount}" for mount in seen]
    return ["apptainer", "exec", *gpus, *mounts, container.image]


def _pyxis(job: Job) -> list[str]:
    container = job.container
    if container is None or container.runtime != "pyxis":
        return []
    mounts = [mount if ":" in mount else f"{mount}:{mount}" for mount in container.mounts]
    mounts += [f"{folder}:{folder}" for folder in (*job.earlier, job.run_folder)]
    return [f"--container-image={container.image}", f"--container-mounts={','.join(mounts)}"]
