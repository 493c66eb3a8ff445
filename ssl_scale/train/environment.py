"""Where a run ran: commit, package versions, host, GPUs and the Slurm job, for every attempt.

``environment.json`` grows by one entry an attempt. A resume in another environment is allowed and
warned about: it may no longer be bit-identical. Environment variables enter by a list of names,
so that a token in the environment never reaches the file.
"""

import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ssl_scale import dist
from ssl_scale.errors import SslScaleError
from ssl_scale.redact import redact_text
from ssl_scale.train.records import METRICS_NAME, read_metrics, read_resumes

ENVIRONMENT_NAME = "environment.json"

_PACKAGES = (
    "ssl-scale", "torch", "lightning", "deepspeed", "numpy", "transformers", "tokenizers",
    "kornia", "safetensors", "webdataset", "pyarrow", "pillow", "wandb", "flash-attn",
)  # fmt: skip
_SLURM = (
    "SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_PARTITION",
    "SLURM_JOB_NUM_NODES", "SLURM_JOB_NODELIST", "SLURM_NNODES", "SLURM_NTASKS",
    "SLURM_NTASKS_PER_NODE", "SLURM_CPUS_PER_TASK", "SLURM_GPUS_ON_NODE", "SLURM_GPUS_PER_NODE",
    "SLURM_MEM_PER_NODE", "SLURM_RESTART_COUNT", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID",
)  # fmt: skip
_COMPARED = ("commit", "has_local_changes", "python", "gpus", "processes")


def describe_environment(attempt: int) -> dict[str, Any]:
    """What this process runs in, as plain data without secrets."""
    commit, has_local_changes = _git_state(Path(__file__).parent)
    return {
        "attempt": attempt,
        "time": time.time(),
        "commit": commit,
        "has_local_changes": has_local_changes,
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "processes": dist.world_size(),
        "slurm": {name: redact_text(os.environ[name]) for name in _SLURM if name in os.environ},
    }


def read_environments(run_folder: Path) -> list[dict[str, Any]]:
    """The environments of all attempts so far, oldest first."""
    path = Path(run_folder) / ENVIRONMENT_NAME
    if not path.exists():
        return []
    try:
        attempts = json.loads(path.read_text(encoding="utf-8"))["attempts"]
        return [dict(entry) for entry in attempts]
    except (ValueError, KeyError, TypeError) as error:
        raise SslScaleError(
            f"{path} must hold the environments of the run's attempts, but is damaged ({error}); "
            "move it away to go on without it"
        ) from error


def next_attempt(run_folder: Path) -> int:
    """The number of the attempt that is about to start."""
    metrics = Path(run_folder) / METRICS_NAME
    numbers = [entry["attempt"] for entry in read_environments(run_folder)]
    numbers += [line["attempt"] for line in read_metrics(metrics)]
    numbers += [attempt for attempt, _ in read_resumes(metrics)]
    return max(numbers, default=0) + 1


def record_environment(run_folder: Path, attempt: int) -> list[str]:
    """Append this attempt's environment to environment.json; rank 0 only.

    Returns:
        What differs from the attempt before, one warning each.
    """
    if dist.rank() != 0:
        return []
    earlier = read_environments(run_folder)
    now = describe_environment(attempt)
    path = Path(run_folder) / ENVIRONMENT_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({"attempts": [*earlier, now]}, indent=1) + "\n")
    return compare_environments(earlier[-1], now) if earlier else []


def compare_environments(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Warnings where a resumed run may no longer continue exactly."""
    was = {name: before.get(name) for name in _COMPARED} | dict(before.get("packages", {}))
    has = {name: now.get(name) for name in _COMPARED} | dict(now.get("packages", {}))
    return [
        f"this attempt has {_say(name, has.get(name))}, but the one before had "
        f"{_say(name, was.get(name))}"
        for name in sorted(was.keys() | has.keys())
        if was.get(name) != has.get(name)
    ]


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old text or the new one, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _say(name: str, value: Any) -> str:
    return f"no {name}" if value in (None, []) else f"{name} {value}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state(folder: Path) -> tuple[str | None, bool | None]:
    """The commit and whether tracked files differ from it; None unless we run from a checkout.

    A virtual environment may lie inside somebody else's repository, whose commit says nothing
    about us; so this file itself must be tracked.
    """
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None, None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "..")
    return commit, None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
