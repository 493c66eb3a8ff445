"""The linear probe: what it can and cannot learn, and that its choice is repeatable."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssl_scale.probes.linear import LinearProbe


def noisy_line(n: int, seed: int, width: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """One feature of thirty tells the class, at an odd scale and place."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, width)) * np.geomspace(0.01, 100, width) + 5
    labels = (features[:, 3] + 0.3 * features[:, 3].std() * rng.normal(size=n) > 5).astype(int)
    return features.astype(np.float32), labels


def test_a_linear_class_is_learned_whatever_the_scale_of_its_feature() -> None:
    (train, labels), (test, test_labels) = noisy_line(400, 0), noisy_line(1000, 1)
    assert LinearProbe().score(train, labels, test, test_labels)["accuracy"] > 0.85


def test_one_strength_is_logistic_regression_on_standardised_features() -> None:
    (train, labels), (test, _) = noisy_line(60, 0), noisy_line(200, 1)
    mean, std = train.astype(float).mean(0), train.astype(float).std(0)
    reference = LogisticRegression(C=0.1, max_iter=2000).fit((train - mean) / std, labels)
    predicted = LinearProbe(strengths=(0.1,)).predict(train, labels, test)
    assert (predicted == reference.predict((test - mean) / std)).mean() > 0.995


def test_cross_validation_finds_the_strength_that_noise_asks_for() -> None:
    (train, labels), (test, test_labels) = noisy_line(60, 0), noisy_line(2000, 1)
    chosen = LinearProbe().score(train, labels, test, test_labels)["accuracy"]
    weak = LinearProbe(strengths=(1e4,)).score(train, labels, test, test_labels)["accuracy"]
    assert chosen > weak


def test_one_sample_a_class_is_enough() -> None:
    train = np.eye(4, dtype=np.float32)
    assert LinearProbe().score(train, np.arange(4), train, np.arange(4)) == {"accuracy": 1.0}


def test_scores_repeat_to_the_last_digit() -> None:
    (train, labels), (test, _) = noisy_line(50, 0), noisy_line(50, 1)
    first = LinearProbe().predict(train, labels, test)
    assert (LinearProbe().predict(train, labels, test) == first).all()


def test_a_single_class_is_refused() -> None:
    with pytest.raises(ValueError, match="labels must be of at least two classes, but are of 1"):
        LinearProbe().predict(np.ones((3, 2)), np.zeros(3, dtype=int), np.ones((1, 2)))
