"""Every method in one small setting: it ends better than it began, on held-out data.

Pictures are told apart by their neighbours, emoji are found by their names (their classes are mere
blocks of Unicode), and hidden tokens of text are guessed better than by their frequency.

``SSL_SCALE_SMALL_STEPS=100`` shortens all runs, whose figures then stay in their folder;
``SSL_SCALE_SMALL_FOLDER`` names that folder, keeps shards and runs, and lets them go on, unless the
recipe has changed since;
``SSL_SCALE_SMALL_PROCESSES`` is 2 unless told.
"""

import json
import operator
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ssl_scale.recipe.finding import list_recipes
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.recipe.recipe import Recipe
from tests.torture.small_data import make_shards
from tests.torture.small_results import BASELINES, SEEDS, read_finding, record, write_page
from tests.torture.table import commit

pytestmark = [pytest.mark.torture, pytest.mark.timeout(6 * 3600)]

RECIPES = [name for name in list_recipes() if name.startswith("small/")]
FAMILY = {"cifar10": "vision", "emoji": "vision_language", "ag_news": "text"}
DATA = {
    "small/clip": "emoji",
    "small/siglip": "emoji",
    "small/slip": "emoji",
    "small/bert": "ag_news",
}
# The columns in which a run must be better than the untrained encoder, or than frequencies.
COMPARED = {
    "cifar10": ("k-NN@{}", "linear@{}"),
    "emoji": ("text_to_image/recall@5",),
    "ag_news": ("masked_tokens",),
}
# Whose papers measure the teacher.
BY_TEACHER = ("small/dino", "small/dinov2", "small/ibot", "small/ijepa")
STEPS = os.environ.get("SSL_SCALE_SMALL_STEPS")
PROCESSES = os.environ.get("SSL_SCALE_SMALL_PROCESSES", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("SSL_SCALE_SMALL_FOLDER")
    return Path(kept).resolve() if kept else tmp_path_factory.mktemp("small")


@pytest.fixture(scope="module")
def shards(test_data: Path, folder: Path) -> Mapping[str, Mapping[str, str]]:
    return make_shards(test_data, folder / "shards")


def run(program: str, *arguments: str) -> None:
    path = Path(sys.executable).parent / program
    subprocess.run([str(path), *arguments], check=True)


def forget_another(run_folder: Path, recipe: Recipe) -> None:
    """Remove what an earlier form of the recipe left: lengths, too, may have changed."""
    left = run_folder / "recipe.yaml"
    if left.exists() and left.read_text() != recipe.to_yaml():
        shutil.rmtree(run_folder)


def seconds_of_training(run_folder: Path) -> int:
    """From the first record to the last of each attempt, added up."""
    times: dict[int, list[float]] = {}
    for line in (run_folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        times.setdefault(record["attempt"], []).append(record["time"])
    return round(sum(each[-1] - each[0] for each in times.values()))


def evaluated(run_folder: Path, *options: str) -> dict[str, Any]:
    """The figures of every row: ``cells`` by label."""
    output = run_folder / f"evaluation{''.join(options).replace('=', '-')}.json"
    told = ("--label=trained", f"--seeds={SEEDS}", f"--output={output}", *options)
    run("ssl-scale", "evaluate", str(run_folder), *told)
    rows = json.loads(output.read_text())["rows"]
    return {
        row["label"]: {name: _short(cell) for name, cell in row["cells"].items()} for row in rows
    }


def _short(cell: Mapping[str, Any]) -> dict[str, float]:
    return {key: round(cell[key], 4) for key in ("mean", "spread") if cell.get(key) is not None}


@pytest.mark.parametrize("name", RECIPES)
def test_it_ends_better_than_it_began(
    name: str, shards: Mapping[str, Mapping[str, str]], folder: Path
) -> None:
    data = DATA.get(name, "cifar10")
    steps = int(STEPS or read_recipe(name, require_data=False).train.steps or 0)
    recipe = read_recipe(name, [f"train.steps={steps}"], shards[data])
    assert recipe.evaluation is not None
    run_folder = folder / "runs" / name
    forget_another(run_folder, recipe)
    bound = [f"--data={role}={path}" for role, path in shards[data].items()]
    told = [f"--processes={PROCESSES}", f"--run-folder={run_folder}", f"--set=train.steps={steps}"]
    run("ssl-launch", "local", *told, name, *bound)

    rows = evaluated(run_folder)
    figures = {"figures": rows["trained"]}
    for teacher in recipe.teachers:
        figures["teacher"] = evaluated(run_folder, f"--teacher={teacher}")["trained"]
    shown = figures["teacher" if name in BY_TEACHER else "figures"]
    most = max(recipe.evaluation.labels_per_class)
    columns = [column.format(most) for column in COMPARED[data]]
    is_better = operator.lt if data == "ag_news" else operator.gt
    bars = rows["unigram" if "unigram" in rows else "untrained encoder"]
    result = {
        "recipe": name,
        **{f"small {column}": shown[column]["mean"] for column in columns},
        "data": data,
        **figures,
        "baselines": {label: rows[label] for label in BASELINES if label in rows},
        "steps": steps,
        "samples": steps * recipe.data.global_batch,
        "seconds": seconds_of_training(run_folder),
        "processes": int(PROCESSES),
        "commit": commit(),
    }
    system = f"{FAMILY[data]}/{name.removeprefix('small/')}"
    if STEPS is None:
        write_page(record(system, result))
    else:
        write_page(record(system, result, folder / "small.yaml"), folder / "results-small.md")

    for column in columns:
        reached, bar = shown[column]["mean"], bars[column]["mean"]
        assert is_better(reached, bar) or read_finding(name), f"{column}: {reached} against {bar}"
