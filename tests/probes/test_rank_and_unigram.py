"""RankMe and the unigram loss at the values that their formulas give by hand."""

import math
from collections import Counter

import numpy as np
import pytest

from ssl_scale.probes.rankme import rankme
from ssl_scale.probes.unigram import unigram_cross_entropy

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_features_along_equal_directions_have_their_number_as_rank(rank: int) -> None:
    directions = np.linalg.qr(RNG.normal(size=(8, 8)))[0]
    features = np.linalg.qr(RNG.normal(size=(50, rank)))[0] @ directions[:rank]
    assert rankme(features) == pytest.approx(rank, rel=1e-4)


def test_rank_equals_the_papers_formula() -> None:
    features = RNG.normal(size=(64, 10)) * np.geomspace(1, 1e-3, 10)
    sigma = np.sqrt(np.linalg.eigvalsh(features.T @ features))
    p = [s / sum(sigma) + 1e-7 for s in sigma]
    assert rankme(features) == pytest.approx(math.exp(-sum(x * math.log(x) for x in p)), rel=1e-9)


def test_rank_does_not_depend_on_scale_order_or_rotation() -> None:
    features = RNG.normal(size=(40, 6)) * np.arange(1, 7)
    turned = 30 * features[::-1] @ np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    assert rankme(turned) == pytest.approx(rankme(features))


def test_collapsed_features_have_rank_one() -> None:
    assert rankme(np.zeros((5, 3))) == 1.0
    assert rankme(np.ones((50, 3), dtype=np.float32)) == pytest.approx(1.0, abs=1e-4)


def test_unigram_loss_equals_the_formula() -> None:
    train, held_out = RNG.integers(7, size=200), RNG.integers(9, size=50)
    counts = Counter(train.tolist())
    expected = -sum(math.log((counts[t] + 1) / (200 + 9)) for t in held_out.tolist()) / 50
    assert unigram_cross_entropy(train, held_out, 9) == pytest.approx(expected, rel=1e-12)


def test_unigram_loss_without_training_is_that_of_chance() -> None:
    empty = np.array([], dtype=np.int64)
    assert unigram_cross_entropy(empty, np.arange(5), 5) == pytest.approx(math.log(5))


def test_unigram_tokens_must_be_in_the_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"held_out tokens must be in \[0, 5\), but span \[0, 5\]"):
        unigram_cross_entropy(np.arange(5), np.arange(6), 5)
    with pytest.raises(ValueError, match="held_out must hold at least one token"):
        unigram_cross_entropy(np.arange(5), np.array([], dtype=np.int64), 5)
