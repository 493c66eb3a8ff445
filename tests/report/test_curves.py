import math

import numpy as np

from ssl_scale.report.charts import running_mean, thin
from ssl_scale.report.curves import group_series, window_shares
from ssl_scale.report.tables import figure


def _line(kind, step, **values):
    return {"kind": kind, "step": step, "attempt": 1, "time": float(step), **values}


def test_training_and_validation_of_one_loss_share_a_chart():
    lines = [
        _line("train", 1, **{"loss/mae": 2.0, "loss": 3.0}),
        _line("train", 2, **{"loss/mae": 1.0, "loss": 2.0}),
        _line("validation", 2, **{"held_out/loss/mae": 1.5}),
        _line("probe", 2, **{"knn": 0.7}),
    ]
    series = group_series(lines)
    assert list(series) == ["loss", "knn", "loss/mae"]
    assert [(s.label, list(s.x), list(s.y)) for s in series["loss/mae"]] == [
        ("training", [1, 2], [2.0, 1.0]),
        ("validation, held_out", [2], [1.5]),
    ]


def test_lines_of_a_later_attempt_are_drawn_in_order_of_steps():
    lines = [_line("train", step, loss=float(step)) for step in (10, 30, 20)]
    assert list(group_series(lines)["loss"][0].x) == [10, 20, 30]


def test_text_and_bookkeeping_are_no_series():
    lines = [_line("train", 1, source="bare", loss=1.0, **{"samples/bare": 4.0})]
    assert list(group_series(lines)) == ["loss"]


def test_shares_add_up_the_samples_of_each_stretch():
    lines = [
        _line("train", step, **({"samples/a": 3.0} if step % 3 else {"samples/b": 6.0}))
        for step in range(1, 301)
    ]
    ends, amounts = window_shares(lines)
    assert len(ends) == 30 and ends[-1] == 300
    assert sum(amounts["a"]) == 200 * 3.0
    assert sum(amounts["b"]) == 100 * 6.0


def test_a_thinned_line_keeps_its_shape():
    x = np.arange(5000.0)
    few_x, few_y = thin(x, x * 2)
    assert len(few_x) <= 600
    np.testing.assert_allclose(few_y, few_x * 2)
    np.testing.assert_allclose(few_y.mean(), (x * 2).mean(), rtol=0.05)


def test_a_running_mean_leaves_out_what_is_not_finite():
    smooth = running_mean(np.array([1.0, math.nan, 3.0]), 3)
    assert smooth.tolist() == [1.0, 2.0, 3.0]
    assert math.isnan(running_mean(np.array([math.nan]), 3)[0])


def test_figures_read_well_at_any_size():
    assert [figure(v) for v in (0.34567, 2.5, 899.94, 12345.6, 3e-5, math.nan)] == [
        "0.3457", "2.500", "899.9", "12,346", "3e-05", "not finite",
    ]  # fmt: skip
