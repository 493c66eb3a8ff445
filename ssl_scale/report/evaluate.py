"""``ssl-scale evaluate``: runs against raw samples, an untrained encoder and each other.

The table's rows share data, labelled subsets and hidden tokens. The first run's recipe says what is
measured (its ``evaluation`` and ``probes``); every run brings its own encoder, views and fields,
and may have an ``evaluation`` of its own.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_scale.data.decoding import FieldDecoder
from ssl_scale.data.text_field import TextField
from ssl_scale.errors import DataError, RecipeError
from ssl_scale.probes.knn import KNN
from ssl_scale.probes.linear import LinearProbe
from ssl_scale.probes.probe import Probe
from ssl_scale.recipe.evaluation_plan import EvaluationData, EvaluationPlan
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.report import measure
from ssl_scale.report.features import open_held_out, read_batches
from ssl_scale.report.measure import Batches, Figures, Labelled
from ssl_scale.report.results import (
    describe_columns,
    describe_differences,
    describe_rows,
    describe_terms,
    to_csv,
)
from ssl_scale.report.tables import EVALUATION_NAME, lay_out
from ssl_scale.report.terminal import draw_table
from ssl_scale.system.build import build_fields
from ssl_scale.system.system import System
from ssl_scale.train.environment import write_atomically
from ssl_scale.train.trained import Trained, build_untrained, read_trained

PIXELS, WORDS, UNTRAINED, UNIGRAM = ("raw pixels", "bag of words", "untrained encoder", "unigram")


@dataclass
class Evaluation:
    """The rows so far.

    Args:
        seeds: choose the labelled subsets.
        probes: are fitted on features.
        began: for progress lines.
    """

    seeds: Sequence[int]
    probes: Mapping[str, Probe]
    began: float = field(default_factory=time.monotonic)
    rows: dict[str, Figures] = field(default_factory=dict)
    test_labels: np.ndarray | None = None

    def say(self, text: str) -> None:
        """Print one line of progress."""
        sys.stderr.write(f"[{time.monotonic() - self.began:5.1f} s] {text}\n")
        sys.stderr.flush()


def evaluate(
    run_folders: Sequence[Path],
    overrides: Sequence[str] = (),
    bindings: Mapping[str, str] | None = None,
    seeds: int = 3,
    output: Path | None = None,
    labels: Sequence[str] = (),
    teacher: str | None = None,
) -> dict[str, Any]:
    """Measure runs, print the table, and write it as JSON and CSV.

    Args:
        run_folders: one row each.
        overrides: laid over every run's recipe; of sections that say what is measured, over the
            first run's.
        bindings: data role -> path.
        seeds: how many labelled subsets of each size.
        output: the JSON; ``evaluation.json`` in the first run's folder unless told.
        labels: the rows' names; the folders' unless told.
        teacher: a teacher whose copies take the student's place.

    Returns:
        What was written.
    """
    names = list(labels) or [Path(folder).resolve().name for folder in run_folders]
    if len(set(names) - {PIXELS, WORDS, UNTRAINED, UNIGRAM}) != len(run_folders):
        raise RecipeError(
            f"labels must be {len(run_folders)} different names, one a run, but are {names}"
        )
    runs = zip(names, run_folders, strict=True)
    name, folder = next(runs)
    first = read_trained(folder, None, teacher, overrides, bindings)
    plan, table = _plan_of(first.recipe, folder), Evaluation(range(seeds), _probes(first.recipe))
    data = _Data(first.recipe, plan)
    _measure_baselines(table, first.recipe, plan, data)
    _measure_run(table, name, first, plan, data)
    for name, folder in runs:
        other = _read_other(folder, teacher, overrides, bindings or {})
        # A run that has no text, say, can't name a text objective; it is measured as the first is.
        own = other.recipe.evaluation or plan
        _measure_run(table, name, other, own, _Data(other.recipe, own))
    _measure_unigram(table, first.system, plan, data)
    assert table.test_labels is not None, "the baselines were measured"
    result = {
        "version": 1,
        "recipe": first.recipe.name,
        "step": first.step,
        "teacher": teacher,
        "seeds": list(table.seeds),
        "num_test": len(table.test_labels),
        "columns": describe_columns(table.rows, list(table.probes), plan.labels_per_class),
        "rows": describe_rows(table.rows),
        "notes": [
            *describe_terms(len(table.test_labels), seeds),
            *describe_differences(table.rows, names[0], list(table.probes), plan.labels_per_class),
        ],
    }
    path = Path(output) if output else Path(run_folders[0]) / EVALUATION_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(result, indent=1) + "\n")
    write_atomically(path.with_suffix(".csv"), to_csv(result))
    sys.stdout.write(draw_table(lay_out(result)) + f"written: {path}\n")
    return result


class _Data:
    """The evaluation's data sets, opened with one recipe's fields; read anew for each pass."""

    def __init__(self, recipe: Recipe, plan: EvaluationPlan) -> None:
        self.fields = build_fields(recipe)
        self.seed = recipe.train.seed
        self.views = {name: spec.arguments.get("field") for name, spec in recipe.views.items()}
        self.masks = {name: mask.view for name, mask in recipe.masks.items()}
        self.shown = str(self.views[plan.view or plan.encoder])
        self.label = plan.label

    def labelled(self, data: EvaluationData, caption: str | None = None) -> Batches:
        """Labelled samples, and captions if asked and there."""
        wanted = {name: self.fields[name] for name in (self.shown, self.label)}
        if caption is not None and _holds(data, self.fields[caption]):
            wanted[caption] = self.fields[caption]
        return self._batches(data, wanted)

    def of_view(self, data: EvaluationData, view: str) -> Batches:
        """What a view shows."""
        name = str(self.views[view])
        return self._batches(data, {name: self.fields[name]})

    def _batches(self, data: EvaluationData, fields: Mapping[str, FieldDecoder]) -> Batches:
        source = open_held_out(data, fields, self.seed)
        return lambda: read_batches(source)


def _holds(data: EvaluationData, decoder: FieldDecoder) -> bool:
    source = open_held_out(data, {}, 0)
    return any(source.dataset.fields.get(extension, 0) for extension in decoder.extensions)


def _read_other(
    folder: Path, teacher: str | None, overrides: Sequence[str], bindings: Mapping[str, str]
) -> Trained:
    """A run that is not the first: roles that its recipe does not name are none of its business."""
    own = [text for text in overrides if not text.startswith(("evaluation", "probes"))]
    roles = read_recipe(folder, own, require_data=False).paths
    return read_trained(
        folder, None, teacher, own, {role: bindings[role] for role in roles if role in bindings}
    )


def _plan_of(recipe: Recipe, folder: Path) -> EvaluationPlan:
    if recipe.evaluation is None:
        raise RecipeError(
            f"{folder}: the run's recipe must have an `evaluation` section to be evaluated, but "
            "has none; add one with --set evaluation.pool.data=..., or in the recipe"
        )
    return recipe.evaluation


def _probes(recipe: Recipe) -> dict[str, Probe]:
    built = {name: spec.build() for name, spec in recipe.probes.items()}
    return built or {"k-NN": KNN(), "linear probe": LinearProbe()}


def _measure_baselines(
    table: Evaluation, recipe: Recipe, plan: EvaluationPlan, data: _Data
) -> None:
    untrained = _on_device(build_untrained(recipe))
    view, field = plan.view or plan.encoder, data.fields[data.shown]
    raw, look = PIXELS, measure.plain_pixels(view)
    if isinstance(field, TextField):
        raw, look = WORDS, measure.bag_of_words(view, field.vocab_size)
    table.say(raw)
    pool, test = (
        measure.look_for_labels(plan, look, untrained, data.labelled(part))
        for part in (plan.pool, plan.test)
    )
    table.test_labels = test.labels
    _check_subsets(pool, plan)
    table.rows[raw] = measure.measure_pixels(
        table.probes, pool, test, plan.labels_per_class, table.seeds
    )
    table.say(UNTRAINED)
    table.rows[UNTRAINED] = _measure(table, untrained, plan, data)


def _check_subsets(pool: Labelled, plan: EvaluationPlan) -> None:
    counts = np.unique(pool.labels, return_counts=True)[1]
    most = max(plan.labels_per_class)
    if not len(counts) or counts.min() < most:
        raise DataError(
            f"evaluation.pool must have {most} samples of every class, but has "
            f"{counts.min() if len(counts) else 0} of one; lower evaluation.labels_per_class"
        )


def _measure(table: Evaluation, system: System, plan: EvaluationPlan, data: _Data) -> Figures:
    system = _on_device(system)
    look = measure.encoder_features(plan)
    pool = measure.look_for_labels(plan, look, system, data.labelled(plan.pool))
    test = measure.look_for_labels(plan, look, system, data.labelled(plan.test))
    if table.test_labels is None or not np.array_equal(table.test_labels, test.labels):
        raise DataError(
            "runs must be evaluated on the same test samples, but this run's recipe names others; "
            "bind them with --data"
        )
    figures = measure.measure_probes(table.probes, pool, test, plan.labels_per_class, table.seeds)
    contrast = measure.aligning_objective(plan, system)
    if contrast is not None and not isinstance(data.fields[data.shown], TextField):
        prompts = measure.make_prompts(plan, contrast, system, data.fields)
        text = next(v for n, v in zip(contrast.between, contrast.views, strict=True)
                    if n != plan.encoder)  # fmt: skip
        batches = data.labelled(plan.test, plan.caption or system.views[text].field)
        figures |= measure.measure_alignment(plan, contrast, system, batches, prompts)
    masked = measure.masked_objective(plan, system)
    if masked is not None and plan.text is not None:
        view = system.masks[masked.mask].view
        figures |= measure.measure_masked_tokens(
            masked, plan.text.objective, system, data.of_view(plan.text.test, view)
        )
    return figures


def _measure_run(
    table: Evaluation, name: str, trained: Trained, plan: EvaluationPlan, data: _Data
) -> None:
    table.say(f"{name}: step {trained.step}")
    table.rows[name] = _measure(table, trained.system, plan, data)


def _measure_unigram(table: Evaluation, system: System, plan: EvaluationPlan, data: _Data) -> None:
    masked = measure.masked_objective(plan, system)
    if masked is None or plan.text is None:
        return
    table.say(UNIGRAM)
    view = system.masks[masked.mask].view
    table.rows[UNIGRAM] = measure.measure_unigram(
        masked,
        system,
        data.of_view(plan.text.train, view),
        data.of_view(plan.text.test, view),
    )


def _on_device(system: System) -> System:
    return system.to("cuda" if torch.cuda.is_available() else "cpu")
