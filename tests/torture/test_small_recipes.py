"""Every method in one small setting: it ends better than it began, on held-out data.

Pictures are told apart by their neighbours, emoji are found by their names (their classes are mere
blocks of Unicode), and hidden tokens of text are guessed better than by their frequency.

``SSL_SCALE_SMALL_STEPS=100`` shortens all runs, whose figures then stay in their folder;
``SSL_SCALE_SMALL_FOLDER`` names that folder, keeps shards and runs, and lets them go on;
``SSL_SCALE_SMALL_PROCESSES`` is 2 unless told.
"""

import json
import operator
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ssl_scale.recipe.finding import list_recipes
from ssl_scale.recipe.reading import read_recipe
from tests.torture.small_data import make_shards
from tests.torture.small_results import BASELINES, SEEDS, record, write_page
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
    recipe = read_recipe(name, require_data=False)
    assert recipe.evaluation is not None
    system = f"{FAMILY[data]}/{name.removeprefix('small/')}"
    steps = int(STEPS or recipe.train.steps or 0)
    run_folder = folder / "runs" / name
    bound = [f"--data={role}={path}" for role, path in shards[data].items()]
    told = [f"--processes={PROCESSES}", f"--run-folder={run_folder}", f"--set=train.steps={steps}"]
    began = time.monotonic()
    run("ssl-launch", "local", *told, name, *bound)
    seconds = round(time.monotonic() - began)

    rows = evaluated(run_folder)
    figures = {"figures": rows["trained"]}
    for teacher in recipe.teachers:
        figures["teacher"] = evaluated(run_folder, f"--teacher={teacher}")["trained"]
    shown = figures["teacher" if name in BY_TEACHER else "figures"]
    if data == "cifar10":
        column, is_better = f"k-NN@{max(recipe.evaluation.labels_per_class)}", operator.gt
    elif data == "emoji":
        column, is_better = "text_to_image/recall@5", operator.gt
    else:
        column, is_better = "masked_tokens", operator.lt
    bar = rows["unigram" if "unigram" in rows else "untrained encoder"][column]["mean"]
    result = {
        "recipe": name,
        f"small {column}": shown[column]["mean"],
        "data": data,
        **figures,
        "baselines": {label: rows[label] for label in BASELINES if label in rows},
        "steps": steps,
        "samples": steps * recipe.data.global_batch,
        "seconds": seconds,
        "processes": int(PROCESSES),
        "commit": commit(),
    }
    if STEPS is None:
        write_page(record(system, result))
    else:
        write_page(record(system, result, folder / "small.yaml"), folder / "results-small.md")

    assert is_better(shown[column]["mean"], bar)
