"""Computes a report's pictures from a run's newest checkpoint and its held-out data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_scale.checkpoint import layout
from ssl_scale.checkpoint.finding import find_checkpoint
from ssl_scale.data.image_field import ImageField
from ssl_scale.data.source import Source
from ssl_scale.data.text_field import TextField
from ssl_scale.data.views.image import ImageView
from ssl_scale.objectives.masked_pixels import MaskedPixels, cut_patches
from ssl_scale.recipe.evaluation_plan import EvaluationPlan
from ssl_scale.report.features import Aligning, look_at, open_held_out, pooled, read_batches
from ssl_scale.report.gallery import (
    Gallery,
    nearest,
    paste_patches,
    reconstruct,
    to_pictures,
    to_plane,
)
from ssl_scale.system.build import build_fields
from ssl_scale.train.trained import Trained, read_trained
from ssl_scale.types import Batch, Step

NUM_QUERIES, NUM_NEIGHBOURS, NUM_RECONSTRUCTIONS, NUM_POINTS, NUM_POOL = 8, 6, 9, 500, 20_000


def update_gallery(run_folder: Path) -> Gallery | None:
    """The pictures of the newest checkpoint, computed unless they are there already.

    Returns:
        None where the run has no checkpoint yet, or its recipe no evaluation on pictures.

    Raises:
        SslScaleError: the data or the checkpoint cannot be read.
    """
    found = Gallery.read(run_folder)
    if not any(layout.valid(Path(run_folder) / "checkpoints")):
        return found
    if found is not None and found.step == layout.step_of(find_checkpoint(run_folder)):
        return found
    trained = read_trained(run_folder)
    gallery = make_gallery(trained)
    if gallery is not None:
        gallery.save(run_folder)
    return gallery


def make_gallery(trained: Trained) -> Gallery | None:
    """Neighbours, reconstructions and a map; None where the evaluation is not of pictures."""
    plan = trained.recipe.evaluation
    if plan is None:
        return None
    shown = _Shown(trained, plan)
    if not isinstance(shown.fields[shown.image], ImageField):
        return None
    test, pool = shown.read(plan.test, NUM_POINTS), shown.read(plan.pool, NUM_POOL)
    return Gallery(
        step=trained.step,
        **_find_neighbours(test, pool),
        **_reconstruct(trained, shown.batch(plan.test)),
        **_draw_map(test, plan),
    )


class _Shown:
    """Reads pictures with their features and names."""

    def __init__(self, trained: Trained, plan: EvaluationPlan) -> None:
        self.system, self.plan = trained.system, plan
        self.seed = trained.recipe.train.seed
        self.fields = build_fields(trained.recipe)
        self.view = plan.view or plan.encoder
        self.image = self.system.views[self.view].field
        self.caption = plan.caption or self._caption_field()

    def read(self, data: Any, most: int) -> dict[str, Any]:
        """Up to so many samples, spread over the data set."""
        source = open_held_out(data, self._wanted(data), self.seed)
        places = np.unique(np.linspace(0, len(source) - 1, min(most, len(source))).astype(int))

        def look(step: Step) -> dict[str, Any]:
            labels = step.batch.fields.get(self.plan.label)
            return {
                "features": pooled(step, self.plan.encoder, self.view),
                "pictures": step.batch.fields[self.image],
                "labels": labels if labels is not None else torch.full((len(step.batch),), -1),
            }

        found = look_at(self.system, read_batches(source, places=places), look)
        return found | {"names": self._names(source, places, found["labels"])}

    def batch(self, data: Any) -> Batch:
        """A few samples for reconstructions, spread over the data set."""
        source = open_held_out(data, {self.image: self.fields[self.image]}, self.seed)
        places = np.linspace(0, len(source) - 1, min(NUM_RECONSTRUCTIONS, len(source)))
        return next(read_batches(source, places=np.unique(places.astype(int))))

    def _wanted(self, data: Any) -> dict[str, Any]:
        present = open_held_out(data, {}, self.seed).dataset.fields
        names = [self.image, self.plan.label, *([self.caption] if self.caption else [])]
        return {
            name: self.fields[name]
            for name in names
            if any(present.get(extension) for extension in self.fields[name].extensions)
        }

    def _names(self, source: Source, places: np.ndarray, labels: np.ndarray) -> list[str]:
        """A sample's caption where it has one, else its class's name."""
        names = [self._class_name(label) for label in labels.tolist()]
        field = source.fields.get(self.caption or "")
        if self.caption and isinstance(field, TextField):
            for row, ref in enumerate(source.locate_all(places)):
                member = source.fetch(ref)[self.caption]
                if member is not None:
                    names[row] = (field.text(*member) or names[row])[:200]
        return names

    def _class_name(self, label: Any) -> str:
        if not isinstance(label, int) or label < 0:
            return ""
        return self.plan.classes[label] if label < len(self.plan.classes) else str(label)

    def _caption_field(self) -> str | None:
        for objective in self.system.objectives.values():
            if isinstance(objective, Aligning):
                names = [self.system.views[view].field for view in objective.views]
                return next((n for n in names if isinstance(self.fields[n], TextField)), None)
        return None


def _find_neighbours(test: Mapping[str, Any], pool: Mapping[str, Any]) -> dict[str, Any]:
    """Queries of as many classes as there are rows."""
    first = np.unique(test["labels"], return_index=True)[1]
    rest = np.setdiff1d(np.arange(len(test["labels"])), first)
    queries = np.concatenate([first, rest])[:NUM_QUERIES]
    count = min(NUM_NEIGHBOURS, len(pool["features"]))
    places, similarities = nearest(test["features"][queries], pool["features"], count)
    return {
        "queries": to_pictures(test["pictures"][queries] / 255),
        "query_names": tuple(test["names"][row] for row in queries),
        "neighbours": np.stack([to_pictures(pool["pictures"][row] / 255) for row in places]),
        "neighbour_names": tuple(tuple(pool["names"][n] for n in row) for row in places),
        "similarities": similarities.astype(np.float32),
        "query_labels": test["labels"][queries],
        "neighbour_labels": pool["labels"][places],
    }


def _reconstruct(trained: Trained, batch: Batch) -> dict[str, Any]:
    """The first masked-pixel objective that looks at the evaluation's field, if there is one."""
    system = trained.system
    for name, objective in system.objectives.items():
        if not isinstance(objective, MaskedPixels):
            continue
        view_name = objective.view or system.masks[objective.mask].view
        maker = system.views[view_name]
        if not isinstance(maker, ImageView) or maker.field not in batch.fields:
            continue
        seen = look_at(system, iter([batch]), _look_at_patches(objective, view_name), scope=name)
        return _paste(seen, objective.normalize, maker)
    return {}


def _look_at_patches(objective: MaskedPixels, view: str) -> Any:
    def look(step: Step) -> dict[str, Any]:
        rows, columns = step.layout(objective.encoder, view).grid
        values = step.view(view).values
        sizes = torch.tensor([[rows, columns, values.shape[2]]]).expand(len(values), 3)
        return {
            "true": cut_patches(values, rows, columns)[:, 0],
            "predicted": objective.predict(step)[:, 0],
            "hidden": step.mask(objective.mask)[view].hidden[:, 0],
            "sizes": sizes,
        }

    return look


def _paste(seen: Mapping[str, np.ndarray], is_normalized: bool, maker: ImageView) -> dict[str, Any]:
    rows, columns, channels = (int(size) for size in seen["sizes"][0])
    shown, predicted = reconstruct(seen["true"], seen["predicted"], seen["hidden"], is_normalized)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (maker.mean, maker.std))
    names = ("originals", "masked", "predictions")
    return {
        name: to_pictures(paste_patches(patches, rows, columns, channels) * std + mean)
        for name, patches in zip(names, (seen["true"], shown, predicted), strict=True)
    }


def _draw_map(test: Mapping[str, Any], plan: EvaluationPlan) -> dict[str, Any]:
    known = test["labels"] >= 0
    if known.sum() < 3:
        return {}
    labels = test["labels"][known]
    count = max(int(labels.max()) + 1, len(plan.classes))
    names = [*plan.classes, *(str(label) for label in range(len(plan.classes), count))]
    return {
        "points": to_plane(test["features"][known]).astype(np.float32),
        "point_labels": labels.astype(np.int64),
        "classes": tuple(names),
    }
