"""A cluster's profile: what every job there needs, in one small YAML file.

Values are data: they are quoted wherever a shell sees them, so ``$HOME`` in one stays five letters.
What looks like a secret is refused: a job inherits the variables of the shell that submits it.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ssl_scale.errors import SslScaleError
from ssl_scale.redact import redact

RUNTIMES = ("apptainer", "pyxis")
GPU_OPTIONS = ("gpus-per-node", "gres", "none")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LARGEST = 1 << 16


@dataclass(frozen=True)
class Container:
    """Where the ranks run, if not on the host itself.

    Args:
        runtime: ``apptainer``, or ``pyxis`` (Enroot by way of Slurm).
        image: a file, or what the runtime takes for one.
        mounts: folders of the host that the ranks see, ``/path`` or ``/path:/inside``.
    """

    runtime: str
    image: str
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """What a cluster wants; see ``launch/profiles/`` for examples.

    Args:
        account: who pays.
        partition: the queue.
        time: the longest job, as ``--time`` takes it.
        cpus_per_task: CPUs of every rank.
        gpu_option: how the cluster is asked for GPUs: ``gpus-per-node``, ``gres`` or ``none``.
        gpu_type: what the plan counts with: a100, h100, ...
        exclude_failed: whether a run is started again without hosts that were at fault.
        sbatch: further options of sbatch, each one word, such as ``--constraint=a100``.
        modules: loaded before the ranks start.
        container: where the ranks run.
        environment: variables of the ranks.
        network: further variables, which say what NCCL and gloo talk over.
    """

    account: str | None = None
    partition: str | None = None
    time: str | None = None
    cpus_per_task: int | None = None
    gpu_option: str = "gpus-per-node"
    gpu_type: str | None = None
    exclude_failed: bool = False
    sbatch: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    container: Container | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    network: Mapping[str, str] = field(default_factory=dict)


def read_profile(path: Path) -> Profile:
    """Read and check a profile.

    Raises:
        SslScaleError: names the file, the key, what it must be and what it is.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > LARGEST or _has_aliases(text):
            raise SslScaleError(f"{path}: must be a small YAML file without aliases, but is not")
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise SslScaleError(f"{path}: must be a profile in YAML, but is not: {error}") from error
    return Profile(**_read_keys(path, "", {} if content is None else content, Profile, _PROFILE))


def _has_aliases(text: str) -> bool:
    # A few lines of aliases of aliases may stand for billions of entries.
    return any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))


Check = Callable[[Path, str, Any], Any]


def _read_keys(
    path: Path, where: str, content: Any, target: type, checks: Mapping[str, Check]
) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise _fault(path, where or "the file", "a mapping", content)
    known = [entry.name for entry in fields(target)]
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
            raise SslScaleError(f"{path}: there is no key {where}{key}{hint}")
    return {
        key: checks[key](path, f"{where}{key}", value)
        for key, value in content.items()
        if value is not None
    }


def _text(path: Path, where: str, value: Any) -> str:
    # YAML makes a number of 24:00:00: the seconds of a day, which Slurm would take for minutes.
    if not isinstance(value, str) or not value.isprintable():
        raise _fault(path, where, "one line of text (in quotes, if it looks like a number)", value)
    return value


def _count(path: Path, where: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise _fault(path, where, "a number above 0", value)
    return value


def _truth(path: Path, where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _fault(path, where, "true or false", value)
    return value


def _one_of(*names: str) -> Check:
    def check(path: Path, where: str, value: Any) -> str:
        if value not in names:
            raise _fault(path, where, f"one of {', '.join(names)}", value)
        return str(value)

    return check


def _texts(path: Path, where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _fault(path, where, "a list", value)
    return tuple(_text(path, f"{where}[{number}]", item) for number, item in enumerate(value))


def _variables(path: Path, where: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _fault(path, where, "a mapping of variables", value)
    for name, content in value.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise _fault(path, where, "names of variables", name)
        if redact({name: str(content)}) != {name: str(content)}:
            raise SslScaleError(
                f"{path}: {where}.{name} must not hold a secret, since job scripts can be read by "
                "others; export it in the shell that submits, which the job inherits"
            )
    return {name: _text(path, f"{where}.{name}", content) for name, content in value.items()}


def _container(path: Path, where: str, value: Any) -> Container:
    found = _read_keys(path, f"{where}.", value, Container, _CONTAINER)
    if missing := {"runtime", "image"} - found.keys():
        raise SslScaleError(f"{path}: {where} must say {' and '.join(sorted(missing))}")
    for mount in found.get("mounts", ()):
        if "," in mount:  # what pyxis separates them with
            raise _fault(path, f"{where}.mounts", "paths without commas", mount)
    return Container(**found)


def _fault(path: Path, where: str, wanted: str, value: Any) -> SslScaleError:
    return SslScaleError(f"{path}: {where} must be {wanted}, but is {value!r}")


_CONTAINER: Mapping[str, Check] = {"runtime": _one_of(*RUNTIMES), "image": _text, "mounts": _texts}
_PROFILE: Mapping[str, Check] = {
    "account": _text,
    "partition": _text,
    "time": _text,
    "cpus_per_task": _count,
    "gpu_option": _one_of(*GPU_OPTIONS),
    "gpu_type": _text,
    "exclude_failed": _truth,
    "sbatch": _texts,
    "modules": _texts,
    "container": _container,
    "environment": _variables,
    "network": _variables,
}
