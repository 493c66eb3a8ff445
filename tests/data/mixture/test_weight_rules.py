"""Rules that learn weights, against the papers' formulas written out plainly."""

import json
from math import exp, log, sqrt

import numpy as np
import pytest

from ssl_scale.data.mixture.bandit_weights import BanditWeights
from ssl_scale.data.mixture.loss_weights import LossWeights
from ssl_scale.data.mixture.weight_rule import WeightRule
from ssl_scale.errors import RecipeError

NAMES = ("a", "b", "c")
REFERENCES = {"a": 1.0, "b": 2.0, "c": 0.5}
START = {"a": 0.5, "b": 0.3, "c": 0.2}


def losses_of(rounds: int) -> list[dict[str, float]]:
    drawn = np.random.default_rng(3).uniform(0.4, 3.0, (rounds, 3))
    return [dict(zip(NAMES, row, strict=True)) for row in drawn.tolist()]


def learned(rule: WeightRule, losses: list[dict[str, float]]) -> list[dict[str, float]]:
    """What a rule says after each round; its answer acts in the round after the next."""
    rule.start(START)
    acts, said = [START, START], []
    for round_, of_round in enumerate(losses):
        said.append(rule.learn(of_round, acts[round_]))
        acts.append(said[-1])
    return said


def test_the_bandit_follows_algorithm_1_of_online_data_mixing() -> None:
    losses, alpha, k = losses_of(60), 0.8, 3
    reward, acts = [0.0] * k, [list(START.values())] * 2
    for t, of_round in enumerate(losses, 1):
        used = acts[t - 1]
        reward = [
            alpha * reward[i] + (1 - alpha) * of_round[name] / used[i]
            for i, name in enumerate(NAMES)
        ]
        e_now = min(1 / k, sqrt(log(k) / (k * t)))
        e_before = 1 / k if t == 1 else min(1 / k, sqrt(log(k) / (k * (t - 1))))
        whole = sum(exp(e_before * r) for r in reward)
        acts.append([(1 - k * e_now) * exp(e_before * r) / whole + e_now for r in reward])
    found = learned(BanditWeights(smoothing=alpha), losses)
    for expected, weights in zip(acts[2:], found, strict=True):
        assert list(weights.values()) == pytest.approx(expected, rel=1e-12)
    # K ln K = 3.3: as long as that, all have the same weight.
    for weights in found[:3]:
        assert list(weights.values()) == pytest.approx([1 / 3] * 3)
    assert max(found[3].values()) > 0.34


def test_the_bandit_prefers_large_losses_and_forgets_nobody() -> None:
    said = learned(BanditWeights(), [{"a": 3.0, "b": 1.0, "c": 1.0}] * 50)
    assert said[-1]["a"] > said[-1]["b"] >= sqrt(log(3) / (3 * 50))
    assert sum(said[-1].values()) == pytest.approx(1)
    # Losses in the thousands are no overflow.
    assert sum(learned(BanditWeights(), [{"a": 1e5, "b": 1.0}] * 9)[-1].values()) < 1.001


def test_who_was_not_drawn_keeps_its_reward() -> None:
    rule = BanditWeights(smoothing=0.5)
    rule.start(START)
    rule.learn({"a": 1.0, "b": 1.0, "c": 1.0}, START)
    rule.learn({"a": 1.0}, START)
    assert rule.rewards == pytest.approx({"a": 1.5, "b": 0.5 / 0.3, "c": 0.5 / 0.2})


def test_excess_losses_raise_weights_as_in_doremi() -> None:
    losses, eta, c = losses_of(20), 0.7, 0.01
    weights = np.array(list(START.values()))
    expected = []
    for of_round in losses:
        excess = [max(of_round[name] - REFERENCES[name], 0) for name in NAMES]
        raised = weights * np.exp(eta * np.array(excess))
        weights = (1 - c) * raised / raised.sum() + c / 3
        expected.append(weights.tolist())
    found = learned(LossWeights(REFERENCES, rate=eta, smoothing=c), losses)
    for values, said in zip(expected, found, strict=True):
        assert [said[name] for name in NAMES] == pytest.approx(values, rel=1e-12)


def test_losses_below_their_references_do_not_count() -> None:
    rule = LossWeights(REFERENCES, smoothing=0.0)
    rule.start(START)
    assert rule.learn({"a": 0.1, "b": 1.9}, START) == pytest.approx(START)
    assert rule.learn({"a": 900.0}, START)["a"] == pytest.approx(1)


def test_references_name_the_sources() -> None:
    with pytest.raises(RecipeError, match=r"must name the sources \['a', 'b'\], but name \['a',"):
        LossWeights(REFERENCES).start({"a": 0.5, "b": 0.5})


@pytest.mark.parametrize("kind", [BanditWeights, lambda: LossWeights(REFERENCES)])
def test_a_saved_rule_goes_on_as_it_was(kind: type[WeightRule]) -> None:
    losses = losses_of(12)
    rule, again = kind(), kind()
    learned(rule, losses[:7])
    again.load_state_dict(json.loads(json.dumps(rule.state_dict())))
    for of_round in losses[7:]:
        assert again.learn(of_round, START) == rule.learn(of_round, START)
