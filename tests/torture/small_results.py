"""What the small recipes reach: ``recipes/results/small.yaml``, and the page made from it.

What is surprising is explained in the recipe itself, in a comment that begins with ``Finding:``.
"""

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from ssl_scale.recipe.finding import find_recipe

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "recipes" / "results" / "small.yaml"
PAGE = ROOT / "docs" / "results-small.md"

BASELINES = ("untrained encoder", "raw pixels", "bag of words", "unigram")
TITLES = {
    "cifar10": "CIFAR-10: 10,000 pictures to train on, 2,000 held out",
    "emoji": "Emoji: 1,048 with their names to train on, 200 held out",
    "ag_news": "AG News: 4,600 items to train on, 1,000 held out",
}
_HEAD = """\
# What the small recipes reach

Each method's loss in one small setting (`recipes/_base/small.yaml` and `small_pairs.yaml`, and
`recipes/small/bert.yaml`): one encoder, one optimizer and as many samples for every row of a table.
These are no figures of the papers, and one run a method is no ranking: the tables show that each
method learns. The rows are replaced by

    {command}

Figures are per cent of held-out samples, mean ± deviation over {seeds} draws of the labelled
samples; `@n` means n labels of each class. Rows of a teacher are its encoder in the student's
place; the papers of DINO, iBOT, DINOv2 and I-JEPA measure it. Pictures of CIFAR-10 are JPEG copies,
so figures are a little below those of the original pixels; raw pixels, too, are measured at the
24 px that the encoder sees. Seconds are of training alone, by two processes on two cores, which
were not always free.
"""
COMMAND = "python -m pytest -m torture tests/torture/test_small_recipes.py"
SEEDS = 3


def record(name: str, result: Mapping[str, Any], path: Path = RESULTS) -> dict[str, Any]:
    """Write or replace the entry of a system; returns all."""
    entries = yaml.safe_load(path.read_text()) if path.exists() else {}
    entries = dict(sorted({**entries, name: dict(result)}.items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(entries, sort_keys=False, width=100))
    return entries


def write_page(entries: Mapping[str, Any], path: Path = PAGE) -> None:
    """Lay the entries out, a table for each data set."""
    parts = [_HEAD.format(command=COMMAND, seeds=SEEDS)]
    for data, title in TITLES.items():
        chosen = {name: entry for name, entry in entries.items() if entry["data"] == data}
        if chosen:
            parts.append(f"## {title}\n\n{_table(chosen)}{_findings(chosen)}")
    path.write_text("\n".join(parts))


def read_finding(recipe: str) -> str:
    """What the head of a recipe's file tells after ``Finding:``; nothing if it does not."""
    lines = find_recipe(recipe).read_text().splitlines()
    head = " ".join(line.removeprefix("#").strip() for line in takewhile(_is_comment, lines))
    return head.partition("Finding: ")[2]


def _is_comment(line: str) -> bool:
    return line.startswith("#")


def _findings(entries: Mapping[str, Any]) -> str:
    recipes = [entries[name]["recipe"] for name in sorted(entries)]
    told = [f"- `{recipe}`: {text}\n" for recipe in recipes if (text := read_finding(recipe))]
    return "\n" + "".join(told) if told else ""


def _table(entries: Mapping[str, Any]) -> str:
    names = sorted(entries)
    found = dict.fromkeys(key for name in names for key in entries[name]["figures"])
    columns = [key for key in found if not key.endswith("mean_rank")]
    head = ["recipe", *columns, "samples", "seconds", "commit"]
    lines = [_line(head), _line(["---"] * len(head))]
    # Every recipe of a table has these rows of the same data; the first recipe's are shown.
    for baseline in BASELINES:
        figures = entries[names[0]]["baselines"].get(baseline)
        if figures:
            lines.append(_line([baseline, *_cells(figures, columns), "", "", ""]))
    for name in names:
        entry = entries[name]
        about = [f"{entry['samples']:,}", f"{entry['seconds']:,}", entry["commit"]]
        lines.append(_line([f"`{entry['recipe']}`", *_cells(entry["figures"], columns), *about]))
        if entry.get("teacher"):
            told = _cells(entry["teacher"], columns)
            lines.append(_line([f"`{entry['recipe']}`, teacher", *told, "", "", ""]))
    return "\n".join(lines) + "\n"


def _cells(figures: Mapping[str, Any], columns: list[str]) -> list[str]:
    return [_cell(column, figures.get(column)) for column in columns]


def _cell(column: str, figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return "-"
    if column == "masked_tokens":  # nats
        return f"{figure['mean']:.3f}"
    spread = f" ± {100 * figure['spread']:.1f}" if "spread" in figure else ""
    return f"{100 * figure['mean']:.1f}{spread}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
