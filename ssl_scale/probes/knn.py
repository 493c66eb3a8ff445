"""The label of the nearest neighbours: what features tell without any training."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from ssl_scale.part import Count
from ssl_scale.probes.probe import Probe
from ssl_scale.probes.similarity import unit_rows

_ROWS_AT_ONCE = 1024  # of the table of similarities, to bound memory


class KNN(Probe):
    """Majority vote of the nearest training samples; of tied labels, that of the nearest.

    Args:
        k: how many vote.
        metric: how near is measured.
    """

    def __init__(self, k: Count = 1, metric: Literal["cosine", "euclidean"] = "cosine") -> None:
        self.k, self.metric = k, metric

    def predict(
        self,
        train: Float[np.ndarray, "train width"],
        train_labels: Int[np.ndarray, " train"],
        test: Float[np.ndarray, "test width"],
    ) -> Int[np.ndarray, " test"]:
        """A label for each test sample."""
        if self.k > len(train):
            raise ValueError(
                f"k must be at most the {len(train)} training samples, but is {self.k}"
            )
        classes, votes = np.unique(train_labels, return_inverse=True)
        predicted = [
            self._vote(similarity, votes, len(classes))
            for similarity in self._similarities(train, test)
        ]
        return classes[np.concatenate(predicted)] if predicted else classes[:0]

    def score(
        self,
        train: Float[np.ndarray, "train width"],
        train_labels: Int[np.ndarray, " train"],
        test: Float[np.ndarray, "test width"],
        test_labels: Int[np.ndarray, " test"],
    ) -> dict[str, float]:
        """``accuracy`` on the test samples."""
        hits = self.predict(train, train_labels, test) == test_labels
        return {"accuracy": float(hits.mean())}

    def _similarities(self, train: np.ndarray, test: np.ndarray) -> Iterator[np.ndarray]:
        if self.metric == "cosine":
            train, test = unit_rows(train), unit_rows(test)
            penalty = np.zeros(len(train))
        else:  # |a - b|^2 orders like |b|^2 - 2 a.b
            train, test = train.astype(np.float64), test.astype(np.float64)
            penalty = (train**2).sum(1) / 2
        for start in range(0, len(test), _ROWS_AT_ONCE):
            yield test[start : start + _ROWS_AT_ONCE] @ train.T - penalty

    def _vote(self, similarity: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
        nearest = np.sort(np.argpartition(-similarity, self.k - 1, axis=1)[:, : self.k], axis=1)
        order = np.argsort(-np.take_along_axis(similarity, nearest, 1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, 1)
        # One vote each, and less than one vote in all for being near: it decides ties alone.
        weights = 1 + 0.5 ** np.arange(1, self.k + 1)
        votes = np.zeros((len(similarity), num_classes))
        for rank in range(self.k):
            np.add.at(votes, (np.arange(len(votes)), labels[nearest[:, rank]]), weights[rank])
        winners: np.ndarray = votes.argmax(1)
        return winners
