"""k-NN against a loop that does what its docstring says."""

from collections import Counter

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from ssl_scale.probes.knn import KNN


def blobs(n: int, width: int = 5, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n) * 10  # labels need not be 0, 1, 2, ...
    centres = np.random.default_rng(99).normal(size=(classes, width))
    return (centres[labels // 10] + rng.normal(size=(n, width))).astype(np.float32), labels


def vote_one_by_one(
    k: int, metric: str, train: np.ndarray, labels: np.ndarray, test: np.ndarray
) -> list[int]:
    predicted = []
    for x in test.astype(np.float64):
        if metric == "cosine":
            distance = [-(x @ t) / np.linalg.norm(x) / np.linalg.norm(t) for t in train]
        else:
            distance = [np.linalg.norm(x - t) for t in train]
        nearest = [labels[place] for place in np.argsort(distance)[:k]]
        votes = Counter(nearest)
        tied = {label for label, count in votes.items() if count == max(votes.values())}
        predicted.append(next(label for label in nearest if label in tied))
    return predicted


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 2, 4, 7, 40])
def test_votes_equal_a_loop_over_samples(k: int, metric: str) -> None:
    (train, labels), (test, _) = blobs(40), blobs(60, seed=1)
    expected = vote_one_by_one(k, metric, train, labels, test)
    assert KNN(k, metric).predict(train, labels, test).tolist() == expected  # type: ignore[arg-type]


def test_the_nearest_neighbour_is_scikit_learns() -> None:
    (train, labels), (test, test_labels) = blobs(200), blobs(3000, seed=1)
    expected = KNeighborsClassifier(1, metric="cosine").fit(train, labels)
    score = KNN().score(train, labels, test, test_labels)
    assert score == {"accuracy": expected.score(test, test_labels)}


def test_more_neighbours_than_samples_are_refused() -> None:
    train, labels = blobs(4)
    with pytest.raises(ValueError, match="k must be at most the 4 training samples, but is 5"):
        KNN(5).predict(train, labels, train)
