"""Logistic regression on frozen features."""

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_scale.part import Count, Positive
from ssl_scale.probes.probe import Probe


class LinearProbe(Probe):
    """Multinomial logistic regression with an L2 penalty on standardised features.

    The penalty is chosen by cross-validation on the training samples. Where a class has a single
    one, nothing can be held out, and the middle of the grid is taken.

    Args:
        strengths: inverse penalties to choose from (scikit-learn's ``C``), in rising order.
        folds: parts of the training samples that are held out by turns.
        max_iter: bound on the solver's steps.
    """

    def __init__(
        self,
        strengths: tuple[Positive, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0),
        folds: Count = 3,
        max_iter: Count = 2000,
    ) -> None:
        if not strengths:
            raise ValueError("strengths must hold at least one number, but is empty")
        self.strengths, self.folds, self.max_iter = strengths, folds, max_iter

    def predict(
        self,
        train: Float[np.ndarray, "train width"],
        train_labels: Int[np.ndarray, " train"],
        test: Float[np.ndarray, "test width"],
    ) -> Int[np.ndarray, " test"]:
        """A label for each test sample."""
        labels: np.ndarray = self._fit(train, train_labels).predict(test.astype(np.float64))
        return labels

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

    def _fit(self, train: np.ndarray, labels: np.ndarray) -> Pipeline:
        train = train.astype(np.float64)
        _, counts = np.unique(labels, return_counts=True)
        if len(counts) < 2:
            raise ValueError(f"labels must be of at least two classes, but are of {len(counts)}")
        middle = self.strengths[len(self.strengths) // 2]
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=middle, max_iter=self.max_iter)
        )
        folds = min(self.folds, int(counts.min()))
        if folds < 2 or len(self.strengths) == 1:
            return model.fit(train, labels)
        search = GridSearchCV(
            model,
            {"logisticregression__C": list(self.strengths)},
            cv=StratifiedKFold(folds, shuffle=True, random_state=0),
        )
        return search.fit(train, labels).best_estimator_
