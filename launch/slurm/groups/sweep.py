"""Runs that differ in a few values: all combinations, each with a name and overrides of its own.

``sweep.json`` in the folder that holds the tasks' own folders keeps which is which.
"""

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from ssl_scale.errors import SslScaleError

from ..client.record import write_json

NAME = "sweep.json"
# Slurm's own limit to an array, unless a cluster is set up otherwise.
MOST_TASKS = 1000
LONGEST_NAME = 80


@dataclass(frozen=True)
class Axis:
    """A value of the recipe that is varied.

    Args:
        key: path to it, as ``--set`` takes it.
        values: in YAML notation.
    """

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One run of a sweep.

    Args:
        name: of its folder.
        overrides: of the recipe, ``path.to.key=value``, one for each axis.
    """

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep.

    Args:
        recipe: a recipe's name or file.
        keys: what is varied.
        tasks: in the order of their numbers in Slurm's array.
        at_once: how many may run at the same time; as many as there is room for if None.
    """

    recipe: str
    keys: tuple[str, ...]
    tasks: tuple[Task, ...]
    at_once: int | None

    def array(self, numbers: Sequence[int]) -> str:
        """The option of sbatch that asks for these tasks."""
        limit = "" if self.at_once is None else f"%{self.at_once}"
        return f"--array={_ranges(numbers)}{limit}"


def read_axis(text: str) -> Axis:
    """What ``--sweep a.b=1,2,4`` means; values are in YAML's flow style: ``[1, 2],[3]``.

    Raises:
        SslScaleError: it has no key or no values, or they cannot be told apart.
    """
    key, equals, listed = text.partition("=")
    if not equals or not all(key.split(".")):
        raise SslScaleError(f"--sweep must read path.to.key=value,value,..., but is {text!r}")
    values = _split(key, listed)
    if len(set(values)) < len(values):
        raise SslScaleError(f"--sweep {key} must have different values, but has {listed}")
    return Axis(key, values)


def _split(key: str, listed: str) -> tuple[str, ...]:
    """The values as they were written; nothing but their borders is read here."""
    whole = f"[{listed}]"
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(whole)):
            raise SslScaleError(f"--sweep {key} must have values without aliases, but has {listed}")
        found = yaml.compose(whole, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise SslScaleError(
            f"--sweep {key} must have values in YAML notation, separated by commas, but has "
            f"{listed!r}; put quotes around a value with commas or brackets"
        ) from error
    items = found.value if isinstance(found, yaml.SequenceNode) else []
    values = tuple(whole[one.start_mark.index : one.end_mark.index].strip() for one in items)
    if not values or not all(values):
        raise SslScaleError(f"--sweep {key} must have at least one value, each not empty")
    return values


def tasks_of(axes: Sequence[Axis]) -> tuple[Task, ...]:
    """All combinations of the axes' values; the last axis changes fastest.

    Raises:
        SslScaleError: there are too many, or a key is varied twice.
    """
    keys = [axis.key for axis in axes]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise SslScaleError(f"--sweep must name every key once, but names {twice} twice")
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > MOST_TASKS:
        raise SslScaleError(
            f"--sweep must make at most {MOST_TASKS} runs, but makes {count}; leave out values, or "
            "sweep in several steps"
        )
    width = len(str(count - 1))
    made = []
    for number, values in enumerate(itertools.product(*(axis.values for axis in axes))):
        label = "-".join(
            f"{key.rpartition('.')[2]}={value}" for key, value in zip(keys, values, strict=True)
        )
        plain = re.sub(r"[^A-Za-z0-9_.+=-]+", "_", label)[:LONGEST_NAME]
        overrides = tuple(f"{key}={value}" for key, value in zip(keys, values, strict=True))
        made.append(Task(f"{number:0{width}}-{plain}", overrides))
    return tuple(made)


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Keep which task is which."""
    write_json(folder / NAME, asdict(sweep))


def read_sweep(folder: Path) -> Sweep | None:
    """The sweep of a folder; None if it holds none.

    Raises:
        SslScaleError: the file is damaged.
    """
    path = folder / NAME
    try:
        found = json.loads(path.read_text())
        tasks = tuple(
            Task(str(task["name"]), tuple(map(str, task["overrides"]))) for task in found["tasks"]
        )
        if any(task.name in ("", ".", "..") or "/" in task.name for task in tasks):
            raise ValueError("a task's name is not that of one folder")
        at_once = None if found["at_once"] is None else int(found["at_once"])
        return Sweep(str(found["recipe"]), tuple(map(str, found["keys"])), tasks, at_once)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SslScaleError(
            f"{path}: must hold the tasks of a sweep, but is damaged ({error}); the tasks' own "
            "folders can be used one by one"
        ) from error


def _ranges(numbers: Sequence[int]) -> str:
    """Such as 0-3,7: a list of a thousand numbers would be too long for Slurm."""
    parts: list[str] = []
    for _, group in itertools.groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ",".join(parts)
