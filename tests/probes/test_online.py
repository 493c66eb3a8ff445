"""The classifier trained beside the encoder: what it learns, alone and on several ranks."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_scale import dist
from ssl_scale.probes.online import OnlineClassifier
from tests.distributed import run_ranks


def samples(n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    features = torch.randn(n, 8, generator=generator) + 2 * torch.eye(8)[labels]
    known = torch.rand(n, generator=generator) < 0.7
    return features, torch.where(known, labels, -1), known


def train(sizes: list[int]) -> dict[str, Any]:
    """Five updates; this rank takes its part of each batch of sum(sizes) samples.

    Adam amplifies rounding, so the first gradient is what is compared closely.
    """
    classifier = OnlineClassifier(8, 3, lr=0.1)
    start = sum(sizes[: dist.rank()])
    gradients = []
    for step in range(5):
        mine = slice(start, start + sizes[dist.rank()])
        features, labels, known = (part[mine] for part in samples(sum(sizes), seed=step))
        classifier.update(features, labels, known)
        assert classifier.weight.grad is not None
        gradients.append(classifier.weight.grad)
    return {**classifier.read(), "weight": classifier.weight.detach(), "gradient": gradients[0]}


def test_classes_are_learned_from_chance_on() -> None:
    classifier = OnlineClassifier(8, 3, lr=0.05)
    classifier.update(*samples(64))
    assert classifier.read()["loss"] == pytest.approx(math.log(3), rel=1e-5)
    for step in range(100):
        classifier.update(*samples(64, seed=step))
    classifier.read()
    classifier.update(*samples(512, seed=1000))
    assert classifier.read()["accuracy"] > 0.8


def test_one_update_is_a_step_of_adam_on_the_mean_loss_of_known_samples() -> None:
    features, labels, known = samples(20)
    classifier = OnlineClassifier(8, 3, lr=0.1)
    classifier.update(features, labels, known)
    classifier.update(features, labels, known)
    reference = torch.nn.Linear(8, 3)
    torch.nn.init.zeros_(reference.weight)
    torch.nn.init.zeros_(reference.bias)
    adam = torch.optim.Adam(reference.parameters(), lr=0.1, eps=1e-6)
    for _ in range(2):
        adam.zero_grad()
        logits = reference(torch.nn.functional.layer_norm(features[known], (8,)))
        torch.nn.functional.cross_entropy(logits, labels[known]).backward()
        adam.step()
    torch.testing.assert_close(classifier.weight, reference.weight, atol=1e-5, rtol=0)
    torch.testing.assert_close(classifier.bias, reference.bias, atol=1e-5, rtol=0)


def test_no_gradient_reaches_the_features_and_none_is_needed_to_be_on() -> None:
    features, labels, known = samples(8)
    features.requires_grad_()
    classifier = OnlineClassifier(8, 3)
    with torch.no_grad():
        classifier.update(features, labels, known)
    assert features.grad is None and classifier.weight.abs().sum() > 0


def test_a_batch_without_labels_changes_nothing() -> None:
    features, labels, _ = samples(8)
    classifier = OnlineClassifier(8, 3)
    classifier.update(features, labels, torch.zeros(8, dtype=torch.bool))
    classifier.update(features[:0], labels[:0], torch.zeros(0, dtype=torch.bool))
    assert classifier.read() == {} and not classifier.weight.any()


def test_a_resumed_classifier_goes_on_as_if_never_stopped() -> None:
    straight, first = OnlineClassifier(8, 3), OnlineClassifier(8, 3)
    for step in range(3):
        straight.update(*samples(16, seed=step))
        first.update(*samples(16, seed=step))
    resumed = OnlineClassifier(8, 3)
    resumed.load_state_dict(first.state_dict())
    for classifier in (straight, resumed):
        classifier.update(*samples(16, seed=9))
    assert torch.equal(resumed.weight, straight.weight)
    assert resumed.read() == straight.read()


@pytest.mark.dist
@pytest.mark.parametrize("sizes", [[10, 6], [16, 0]])
def test_two_ranks_learn_what_one_would_from_all_samples(sizes: list[int]) -> None:
    ranks, alone = run_ranks(train, 2, sizes), train([16])
    assert torch.equal(ranks[0]["weight"], ranks[1]["weight"])
    torch.testing.assert_close(ranks[0]["gradient"], alone["gradient"], atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(ranks[0]["weight"], alone["weight"], atol=1e-3, rtol=0)
    assert ranks[0]["accuracy"] == ranks[1]["accuracy"] == alone["accuracy"]
    assert ranks[0]["loss"] == pytest.approx(alone["loss"], rel=1e-4)
