"""A run's folder as a real run leaves it, written by the same code, with made-up figures."""

import json
from contextlib import closing

import numpy as np

from ssl_scale.report.gallery import Gallery
from ssl_scale.train.environment import record_environment
from ssl_scale.train.records import Records

RECIPE = """\
name: {name}
data: {{global_batch: 64}}
train: {{steps: 400, wandb: false}}
note: s3://user:hunter2@host/bucket
"""

EVALUATION = {
    "version": 1,
    "columns": [
        {"name": "knn@1", "group": "k-NN", "title": "1 label"},
        {"name": "knn@5", "group": "k-NN", "title": "5 labels"},
        {"name": "mlm", "group": "text", "title": "masked-token loss", "better": "lower"},
    ],
    "rows": [
        {"label": "raw pixels", "cells": {"knn@1": {"mean": 0.61, "spread": 0.04},
                                          "knn@5": {"mean": 0.84, "spread": 0.01}}},
        {"label": "mixture", "cells": {"knn@1": {"mean": 0.91, "spread": 0.02},
                                       "knn@5": {"mean": 0.95, "spread": 0.01},
                                       "mlm": {"mean": 2.31}}},
        {"label": "unigram", "cells": {"mlm": {"mean": 5.02}}},
    ],
    "notes": ["3 seeds choose the labelled samples."],
}  # fmt: skip


def write_figures(folder, attempt, first, last, after=None, objective="simclr"):
    """One attempt: training lines every 2 steps, validation every 50."""
    rng = np.random.default_rng(attempt)
    record_environment(folder, attempt)
    with closing(Records(folder, attempt)) as records:
        if after is not None:
            records.resume(after)
        for step in range(first, last + 1, 2):
            noise = rng.normal(0, 0.05, 3)
            records.write("train", step, {
                "loss": 4 * np.exp(-step / 120) + 1 + noise[0],
                f"loss/{objective}": 3 * np.exp(-step / 90) + 0.6 + noise[1],
                "loss/mae": np.exp(-step / 200) + 0.2 + noise[2] / 3,
                "accuracy/classify": 1 - np.exp(-step / 100),
                "lr": 1e-3 * min(step / 50, 1) * (1 - step / 500),
                "grad_norm": 1 + abs(noise[0]),
                "samples_per_s": 900 + 30 * noise[1],
                "data_wait_share": 0.02 + abs(noise[2]) / 10,
                "samples/labelled": 64.0 * int(step % 3 == 0),
                "samples/bare": 64.0 * int(step % 3 != 0),
            })  # fmt: skip
            if step % 50 == 0:
                records.write("validation", step, {
                    "held_out/loss/mae": np.exp(-step / 180) + 0.25,
                    "held_out/accuracy/classify": 1 - np.exp(-step / 130),
                })  # fmt: skip


def write_run(folder, name="first-light", objective="simclr"):
    """A run of two attempts, the second resumed at step 200."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(name=json.dumps(name)))
    write_figures(folder, 1, 2, 236, objective=objective)
    write_figures(folder, 2, 202, 400, after=200, objective=objective)
    (folder / "COMPLETED").touch()
    return folder


def make_gallery(name="a thin three"):
    """Noise as pictures."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 10
    return Gallery(
        step=400,
        queries=rng.integers(0, 255, (3, 8, 8, 3), dtype=np.uint8),
        query_names=(name, "a bold eight", "a one"),
        neighbours=rng.integers(0, 255, (3, 5, 8, 8, 3), dtype=np.uint8),
        neighbour_names=((name,) * 5, ("a bold eight", "b", "c", "d", "e"), ("x",) * 5),
        similarities=rng.uniform(0.5, 1, (3, 5)).astype(np.float32),
        query_labels=np.array([3, 8, 1]),
        neighbour_labels=np.array([[3, 3, 3, 5, 3], [8, 3, 3, 8, 8], [1, 1, 7, 1, 1]]),
        originals=rng.integers(0, 255, (6, 8, 8, 3), dtype=np.uint8),
        masked=rng.integers(0, 255, (6, 8, 8, 3), dtype=np.uint8),
        predictions=rng.integers(0, 255, (6, 8, 8, 3), dtype=np.uint8),
        points=(rng.normal(0, 1, (300, 2)) + 5 * np.stack(
            [np.cos(labels), np.sin(labels)], 1)).astype(np.float32),
        point_labels=labels,
        classes=tuple(str(digit) for digit in range(10)),
    )  # fmt: skip
