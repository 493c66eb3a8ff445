"""``launch.json`` in a run's folder: which jobs it had, and with what they were submitted."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_scale.errors import SslScaleError

NAME = "launch.json"
# In the folder of a sweep, about its arrays; each task's folder has a record of its own.
ARRAYS = "arrays.json"


def read_launches(run_folder: Path, name: str = NAME) -> list[dict[str, Any]]:
    """The submissions so far, oldest first.

    Raises:
        SslScaleError: the record is damaged.
    """
    path = run_folder / name
    try:
        return [dict(entry) for entry in json.loads(path.read_text())["launches"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise SslScaleError(
            f"{path}: must hold the run's jobs, but is damaged ({error}); move it away to go on "
            "without it"
        ) from error


def add_launch(
    run_folder: Path,
    job: str,
    cluster: str,
    script: Path,
    options: Sequence[str],
    directory: Path,
    command: Sequence[str] | None = None,
    name: str = NAME,
) -> None:
    """Record a submission.

    Args:
        run_folder: of the run.
        job: Slurm's number of it.
        cluster: Slurm's name of the cluster, where sbatch told it.
        script: what was submitted.
        options: of sbatch, each one word.
        directory: where the job runs.
        command: what was called in truth, where the run was submitted as one of several.
        name: of the record.
    """
    entry = {
        "job": job,
        "cluster": cluster,
        "time": time.time(),
        "script": script.name,
        "command": list(command or ["sbatch", "--parsable", *options, str(script)]),
        "options": list(options),
        "directory": str(directory),
    }
    # A new cluster counts from anew, so that an earlier job may have had the same number.
    cancel_mark(run_folder, job).unlink(missing_ok=True)
    with _alone(run_folder / f".{name}.lock"):
        before = read_launches(run_folder, name)
        write_json(run_folder / name, {"launches": [*before, entry]})


def cancel_mark(run_folder: Path, job: str) -> Path:
    """The file that tells a job's script not to go back to the queue; job.sh looks for it."""
    return run_folder / "launch" / f"cancel-{job}"


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process is in here; not where a file system knows no locks."""
    with path.open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that is either the old one or whole, whatever happens in between."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def content_of(path: Path) -> bytes | None:
    """What a file holds; None if there is none."""
    return path.read_bytes() if path.exists() else None


def put_back(path: Path, content: bytes | None) -> None:
    """Let a file hold what `content_of` found in it."""
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(content)
