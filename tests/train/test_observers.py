"""Online probe and RankMe on the answers of a real system."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_scale import dist
from ssl_scale.data.views.image import AugmentedImage, ImageView
from ssl_scale.encoders.vision import VisionTransformer
from ssl_scale.objectives.cross_entropy import CrossEntropy
from ssl_scale.probes.rankme import rankme
from ssl_scale.system.step import Answers
from ssl_scale.system.system import System
from ssl_scale.train.callbacks.feature_rank import RankMe
from ssl_scale.train.callbacks.online_probe import OnlineProbe
from ssl_scale.types import Batch
from tests.distributed import run_ranks

CLASSES = {"label": 10}


def make_system() -> System:
    torch.manual_seed(0)
    encoder = VisionTransformer(
        width=32, depth=1, num_heads=2, patch=2, size_px=8, channels=1, pool="mean"
    )
    views = {
        "plain": ImageView("image"),
        "two": AugmentedImage("image", 8, scale=(0.8, 1.0), flip=0.0),
    }
    classify = CrossEntropy("image", "label", "two", width=32, classes=CLASSES)
    return System({"image": encoder}, {"classify": classify}, views)


def pictures(start: int, n: int, *fields: str) -> Batch:
    """Noisy copies of one template a class; a place always holds the same one."""
    generator = torch.Generator().manual_seed(0)
    templates = torch.rand(10, 1, 8, 8, generator=generator)
    noise = torch.rand(2000, 1, 8, 8, generator=generator)
    labels = torch.randint(10, (2000,), generator=generator)
    images = (templates[labels] + noise) / 2 * 255
    held: dict[str, Tensor] = {"image": images.to(torch.uint8), "label": labels}
    chosen = {name: held[name][start : start + n].clone() for name in fields or held}
    places = range(start, start + n)
    return Batch("pictures", chosen, torch.tensor(list(places)), tuple(map(str, places)))


def test_the_online_probe_learns_from_frozen_features() -> None:
    system, probe = make_system(), OnlineProbe("image", "label", "plain", 0.05, classes=CLASSES)
    for epoch in range(6):
        for start in range(0, 1280, 128):
            probe.see_step(system.answers(pictures(start, 128)))
        figures = probe.read_steps()
        if epoch == 0:
            first = figures
    assert figures["accuracy"] > max(0.5, first["accuracy"])
    assert figures["loss"] < first["loss"]
    assert probe.read_steps() == {}


def test_it_costs_no_forward_where_an_objective_asked_before() -> None:
    system, probe = make_system(), OnlineProbe("image", "label", "two", classes=CLASSES)
    calls: list[Any] = []
    system.encoder("image").register_forward_hook(lambda *_: calls.append(1))
    answers = system.answers(pictures(0, 16))
    system.losses(answers)
    probe.see_step(answers)
    assert len(calls) == 1
    assert probe.read_steps()["loss"] == pytest.approx(2.302585, rel=1e-5)


def test_the_encoder_does_not_feel_it() -> None:
    with_probe, without = make_system(), make_system()
    probe = OnlineProbe("image", "label", "two", classes=CLASSES)
    for system in (with_probe, without):
        answers = system.answers(pictures(0, 16))
        losses = system.losses(answers)
        if system is with_probe:
            probe.see_step(answers)
        losses["classify"].total.backward()
    for one, other in zip(with_probe.parameters(), without.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)  # type: ignore[arg-type]


def test_batches_without_the_label_or_the_picture_are_passed_over() -> None:
    system, probe = make_system(), OnlineProbe("image", "label", "plain", classes=CLASSES)
    rank = RankMe("image", "plain")
    probe.see_step(system.answers(pictures(0, 8, "image")))
    probe.see_step(system.answers(pictures(0, 8, "label")))
    rank.see_validation("pictures", system.answers(pictures(0, 8, "label")))
    assert probe.read_steps() == {} and rank.read_validation() == {}


def test_samples_without_label_do_not_count() -> None:
    system, batch = make_system(), pictures(0, 32)
    labels = batch.fields["label"]
    assert isinstance(labels, Tensor)
    probe = OnlineProbe("image", "label", "plain", classes=CLASSES)
    alone = OnlineProbe("image", "label", "plain", classes=CLASSES)
    alone.see_step(system.answers(pictures(0, 20)))
    labels[20:] = -1
    probe.see_step(system.answers(batch))
    assert probe.classifier is not None and alone.classifier is not None
    ours, theirs = probe.classifier.weight.grad, alone.classifier.weight.grad
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_a_resumed_probe_goes_on_as_if_never_stopped() -> None:
    system = make_system()
    straight, first, resumed = (
        OnlineProbe("image", "label", "plain", classes=CLASSES) for _ in range(3)
    )
    for start in range(0, 96, 32):
        straight.see_step(system.answers(pictures(start, 32)))
        first.see_step(system.answers(pictures(start, 32)))
    resumed.load_state_dict(first.state_dict())
    assert resumed.state_dict().keys() == first.state_dict().keys()
    for probe in (straight, resumed):
        probe.see_step(system.answers(pictures(96, 32)))
    assert straight.read_steps() == resumed.read_steps()
    assert straight.classifier is not None and resumed.classifier is not None
    assert torch.equal(straight.classifier.weight, resumed.classifier.weight)


def held_out_rank(sizes: list[int], max_samples: int) -> float:
    """RankMe of 64 pictures, of which this rank sees its part."""
    system, rank = make_system().eval(), RankMe("image", "plain", max_samples)
    start = sum(sizes[: dist.rank()])
    with torch.no_grad():
        for place in range(start, start + sizes[dist.rank()], 16):
            rank.see_validation("pictures", system.answers(pictures(place, 16)))
    return rank.read_validation()["rank"]


def first_crops(system: System, n: int) -> Tensor:
    answers: Answers = system.answers(pictures(0, n))
    return answers.named("test").student("image", "plain", grad=False).pooled[:, 0]


def test_rank_is_that_of_the_first_samples() -> None:
    features = first_crops(make_system().eval(), 40).numpy()
    assert held_out_rank([64], 40) == pytest.approx(rankme(features), rel=1e-4)


def test_who_lacks_samples_asks_the_encoder_as_often_as_others() -> None:
    """Under ZeRO-3 a rank that asks alone waits for ever."""
    asked = []
    for num_samples in (16, 11):
        system, rank = make_system().eval(), RankMe("image", "plain", 32)
        calls: list[Any] = []
        system.encoder("image").register_forward_hook(lambda *_, calls=calls: calls.append(1))
        for start in range(0, 64, 16):
            batch = pictures(start, 16)
            batch.fields["image.present"] = torch.arange(16) < num_samples
            rank.see_validation("pictures", system.answers(batch))
        asked.append(len(calls))
        assert sum(map(len, rank.rows)) == 2 * num_samples
    assert asked == [2, 2]


def test_rank_is_measured_every_few_passes() -> None:
    system, rank = make_system().eval(), RankMe("image", "plain", every=2)
    measured = []
    for _ in range(4):
        rank.see_validation("pictures", system.answers(pictures(0, 16)))
        measured.append("rank" in rank.read_validation())
    assert measured == [True, False, True, False]


@pytest.mark.dist
def test_rank_is_that_of_all_ranks_samples() -> None:
    ranks = run_ranks(held_out_rank, 2, [32, 32], 64)
    assert ranks[0] == ranks[1] == pytest.approx(held_out_rank([64], 64), rel=1e-4)
