"""How good features are when labels are few: the same probe on small, seeded subsets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ssl_scale.probes.probe import Probe


@dataclass(frozen=True)
class Summary:
    """One figure over several seeds.

    Args:
        values: one a seed.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """Their standard deviation (of the sample); 0 for one seed."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0


def class_balanced_subset(
    labels: Int[np.ndarray, " n"], per_class: int, seed: int
) -> Int[np.ndarray, " chosen"]:
    """Places of equally many samples of each class, in rising order.

    It depends on the labels, the number and the seed alone, so different features are compared on
    the same samples; and a smaller subset is part of a larger one of the same seed.

    Raises:
        ValueError: a class has fewer samples.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        if len(places) < per_class:
            raise ValueError(
                f"every class must have {per_class} samples, but class {label} has {len(places)}"
            )
        chosen.append(rng.permutation(places)[:per_class])
    return np.sort(np.concatenate(chosen))


def few_label_scores(
    probe: Probe,
    train: Float[np.ndarray, "train width"],
    train_labels: Int[np.ndarray, " train"],
    test: Float[np.ndarray, "test width"],
    test_labels: Int[np.ndarray, " test"],
    labels_per_class: Sequence[int] = (1, 5, 20),
    seeds: Sequence[int] = (0, 1, 2),
    figure: str = "accuracy",
) -> dict[int, Summary]:
    """The probe's figure by the number of labels a class.

    Args:
        probe: is fitted anew on each subset.
        train: features to draw subsets from.
        train_labels: class numbers of `train`.
        test: features to score on, all of them each time.
        test_labels: class numbers of `test`.
        labels_per_class: sizes of subsets.
        seeds: one subset of each size for each.
        figure: which of the probe's figures.
    """

    def measure(per_class: int, seed: int) -> float:
        chosen = class_balanced_subset(train_labels, per_class, seed)
        return probe.score(train[chosen], train_labels[chosen], test, test_labels)[figure]

    return {
        per_class: Summary(tuple(measure(per_class, seed) for seed in seeds))
        for per_class in labels_per_class
    }
