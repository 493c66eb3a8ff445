"""Small labelled subsets: balanced, seeded, nested, the same for all features."""

import numpy as np
import pytest

from ssl_scale.probes.few_labels import Summary, class_balanced_subset, few_label_scores
from ssl_scale.probes.knn import KNN

LABELS = np.random.default_rng(0).integers(4, size=300)


@pytest.mark.parametrize("per_class", [1, 5, 20])
def test_subsets_hold_equally_many_of_each_class(per_class: int) -> None:
    chosen = class_balanced_subset(LABELS, per_class, seed=3)
    assert np.bincount(LABELS[chosen]).tolist() == [per_class] * 4
    assert len(set(chosen.tolist())) == len(chosen)


def test_subsets_depend_on_the_seed_and_grow_from_each_other() -> None:
    small, large = (set(class_balanced_subset(LABELS, n, seed=3).tolist()) for n in (5, 20))
    assert small < large
    assert small != set(class_balanced_subset(LABELS, 5, seed=4).tolist())
    assert small == set(class_balanced_subset(LABELS.copy(), 5, seed=3).tolist())


def test_a_class_with_too_few_samples_is_named() -> None:
    labels = np.array([0, 0, 0, 7, 7])
    with pytest.raises(ValueError, match="every class must have 3 samples, but class 7 has 2"):
        class_balanced_subset(labels, 3, seed=0)


def test_scores_are_the_probes_own_on_each_subset() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(300, 6)) + np.eye(6)[LABELS] * 2
    test, test_labels = features[200:], LABELS[200:]
    train, train_labels = features[:200], LABELS[:200]
    scores = few_label_scores(
        KNN(), train, train_labels, test, test_labels, labels_per_class=(1, 10), seeds=(5, 6)
    )
    assert list(scores) == [1, 10]
    for per_class, summary in scores.items():
        for seed, value in zip((5, 6), summary.values, strict=True):
            chosen = class_balanced_subset(train_labels, per_class, seed)
            alone = KNN().score(train[chosen], train_labels[chosen], test, test_labels)
            assert value == alone["accuracy"]
    assert scores[10].mean > scores[1].mean


def test_a_summary_tells_mean_and_spread() -> None:
    summary = Summary((0.5, 0.7, 0.9))
    assert (summary.mean, summary.spread) == (pytest.approx(0.7), pytest.approx(0.2))
    assert Summary((0.5,)).spread == 0
