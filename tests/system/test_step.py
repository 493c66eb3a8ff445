"""What a live step answers: equal questions once, teachers apart, chance by sample."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from ssl_scale.data.views.image import AugmentedImage, ImageView
from ssl_scale.encoders.vision import VisionTransformer
from ssl_scale.heads.predictor import MLPPredictor
from ssl_scale.heads.projector import LinearProjector, MLPProjector
from ssl_scale.masking.random_mask import RandomMask
from ssl_scale.objectives.byol import BYOL
from ssl_scale.objectives.ntxent import NTXent
from ssl_scale.optim.schedule import Constant
from ssl_scale.part import Spec
from ssl_scale.system.step import LiveStep
from ssl_scale.system.system import NamedMask, System, Terms
from ssl_scale.teachers.ema import EMATeacher
from ssl_scale.types import Batch


def make_encoder(drop_path: float = 0.0) -> VisionTransformer:
    return VisionTransformer(
        width=8, depth=2, num_heads=2, patch=2, size_px=8, channels=1, pool="mean",
        drop_path=drop_path,
    )  # fmt: skip


def make_system(drop_path: float = 0.0) -> System:
    torch.manual_seed(0)
    projector = Spec.of(MLPProjector, hidden=8, out=6)
    objectives = {
        "byol": BYOL("image", projector, Spec.of(MLPPredictor, hidden=8), "crops", width=8),
        "simclr": NTXent("image", projector, "crops", width=8),
    }
    teacher = EMATeacher(Constant(0.5))
    teacher.adopt(
        {
            "encoders.image": make_encoder,
            "heads.shared": lambda: LinearProjector(3, width=8),
            "objectives.byol.projector": lambda: projector.build(width=8),
        }
    )
    system = System(
        {"image": make_encoder(drop_path)},
        objectives,
        {"image": ImageView("image"), "crops": AugmentedImage("image", 8)},
        {name: NamedMask(RandomMask(0.5), "image", "image") for name in ("one", "two")},
        {"shared": LinearProjector(3, width=8)},
        {"ema": teacher},
        {"simclr": Terms(start=0.25, until=0.75)},
        {"few": ("simclr",)},
    )
    teacher.copy_student(system)
    return system


def pictures(numbers: Sequence[int], source: str = "all") -> Batch:
    """Picture n is always the same one, with the same seed."""
    every = torch.randint(0, 256, (50, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    chosen = torch.tensor(numbers)
    keys = tuple(map(str, numbers))
    return Batch(source, {"image": every[chosen].to(torch.uint8)}, chosen * 7919 + 5, keys)


def step_of(system: System, scope: str = "byol", **options: int) -> LiveStep:
    return system.answers(pictures(range(6)), **options).named(scope)


@pytest.fixture
def system() -> System:
    return make_system()


def count_forwards(module: nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_equal_questions_are_answered_once(system: System) -> None:
    calls, step = count_forwards(system.encoder("image")), step_of(system)
    first = step.student("image", "crops")
    assert step.student("image", "crops") is first
    assert step.student("image") is step.student("image", "image")
    masked = step.student("image", mask="one")
    assert step.student("image", mask="one") is masked
    assert len(calls) == 3


def test_all_objectives_share_the_answers(system: System) -> None:
    calls = count_forwards(system.encoder("image"))
    answers = system.answers(pictures(range(6)), progress=0.5)
    assert system.losses(answers).keys() == {"byol", "simclr"}
    assert len(calls) == 1
    one, other = answers.named("byol"), answers.named("simclr")
    assert one.student("image", "crops") is other.student("image", "crops")
    assert one.view("crops") is other.view("crops")


def test_a_question_that_differs_is_a_forward_of_its_own(system: System) -> None:
    calls, step = count_forwards(system.encoder("image")), step_of(system)
    image = step.view("image")
    questions = [
        {},
        {"view": "crops"},
        {"mask": "one"},
        {"mask": "two"},
        {"attend": "causal"},
        {"draw": 1},
        {"draw": 2},
        {"view": image.but(values=image.values / 2)},
        {"mask": step.mask("one")["image"]},
    ]
    answers = [step.student("image", **question) for question in questions]  # type: ignore[arg-type]
    assert len(calls) == len(questions) == len({id(answer) for answer in answers})


def test_objects_asked_with_stay_apart_after_they_are_forgotten(system: System) -> None:
    step = step_of(system)
    image = step.view("image")
    found = [
        step.student("image", image.but(values=image.values * factor)).pooled
        for factor in (1.0, 0.5, 0.0)
    ]
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])


def test_without_gradient_an_answer_with_gradient_is_cut_off(system: System) -> None:
    calls, step = count_forwards(system.encoder("image")), step_of(system)
    whole = step.student("image")
    cut = step.student("image", grad=False)
    assert len(calls) == 1 and whole.pooled.requires_grad and not cut.pooled.requires_grad
    assert torch.equal(whole.pooled, cut.pooled)
    with torch.no_grad():
        assert step.student("image") is cut


def test_asked_without_gradient_first_a_later_question_still_gets_one(system: System) -> None:
    step = step_of(system)
    with torch.no_grad():
        assert not step.student("image").pooled.requires_grad
    assert step.student("image").pooled.requires_grad


def test_a_second_draw_drops_other_paths() -> None:
    step = step_of(make_system(drop_path=0.5))
    first, second = step.student("image"), step.student("image", draw=1)
    assert not torch.equal(first.pooled, second.pooled)


def test_shared_heads_run_once_for_the_same_tensors(system: System) -> None:
    calls, answers = count_forwards(system.heads["shared"]), system.answers(pictures(range(6)))
    x, y = torch.randn(2, 6, 8)
    one, other = answers.named("byol"), answers.named("simclr")
    assert one.apply("shared", x) is other.apply("shared", x)
    assert one.apply("shared", y) is not one.apply("shared", x)
    assert len(calls) == 2
    taught = one.apply("shared", x, by="ema")
    assert torch.equal(taught, one.apply("shared", x)) and not taught.requires_grad


def test_a_taught_head_is_the_asking_objectives(system: System) -> None:
    answers, x = system.answers(pictures(range(6))), torch.randn(6, 1, 8)
    valid = torch.ones(6, 1, dtype=torch.bool)
    assert answers.named("byol").apply("projector", x, valid).shape == (6, 1, 6)
    with pytest.raises(KeyError, match="holds no copy of 'objectives.simclr.projector'"):
        answers.named("simclr").apply("projector", x, valid)


def test_masks_are_drawn_once_and_shared_by_name(system: System) -> None:
    answers = system.answers(pictures(range(6)))
    one, other = answers.named("byol"), answers.named("simclr")
    assert one.mask("one") is other.mask("one")
    hidden = {name: one.mask(name)["image"].hidden for name in ("one", "two")}
    assert not torch.equal(hidden["one"], hidden["two"])
    with pytest.raises(KeyError, match="covers .*image.* asked for 'crops'"):
        one.student("image", "crops", mask="one")


def test_what_is_drawn_for_a_sample_does_not_depend_on_the_batch(system: System) -> None:
    def drawn(numbers: Sequence[int]) -> list[Tensor]:
        step = system.answers(pictures(numbers)).named("byol")
        return [
            step.draw("noise").uniform("x", 3),
            step.view("crops").values,
            step.mask("one")["image"].hidden,
            step.student("image", mask="one").origin,
        ]

    order = [4, 2, 30]
    for together, apart in zip(drawn(range(6)), drawn(order), strict=True):
        assert torch.equal(together[4], apart[0]) and torch.equal(together[2], apart[1])


def test_draws_differ_by_objective_and_name(system: System) -> None:
    answers = system.answers(pictures(range(6)))
    byol, simclr = answers.named("byol"), answers.named("simclr")
    draws = [byol.draw("a"), byol.draw("b"), simclr.draw("a")]
    assert len({tuple(draw.uniform("x").tolist()) for draw in draws}) == 3
    assert torch.equal(byol.draw("a").bits("x"), byol.draw("a").bits("x"))


def test_draws_of_the_step_do_not_depend_on_the_samples(system: System) -> None:
    def drawn(numbers: Sequence[int], scope: str = "byol", **place: int) -> int:
        step = system.answers(pictures(numbers), **place).named(scope)
        return int(torch.randint(1 << 60, (1,), generator=step.draw_step("count")))

    first = drawn([1, 2])
    assert first == drawn([3])  # as another rank sees it
    others = [
        drawn([1, 2], "simclr"),
        *(drawn([1], **{word: 1}) for word in ("index", "seed", "micro")),
    ]
    assert len({first, *others}) == 5


def test_teachers_answer_in_evaluation_mode_without_gradient(system: System) -> None:
    system.train()
    system.train(True)
    assert system.encoder("image").training
    assert not any(module.training for module in system.teachers["ema"].modules())
    step = step_of(system)
    taught = step.teacher("image", "crops")
    assert step.teacher("image", "crops", by="ema") is taught
    assert not taught.tokens.requires_grad
    system.loss(system.answers(pictures(range(6)), progress=0.5)).backward()
    students = [p for p in system.parameters() if p.requires_grad]
    teachers = list(system.teachers["ema"].parameters())
    assert teachers and all(p.grad is None and not p.requires_grad for p in teachers)
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in students)


def test_objectives_are_active_where_fed_and_when_due(system: System) -> None:
    assert system.active("all", 0.0) == ("byol",)
    assert system.active("all", 0.25) == ("byol", "simclr")
    assert system.active("all", 0.75) == ("byol",)
    assert system.active("few", 0.5) == ("simclr",)
    assert system.active("few", 1.0) == ()


def test_views_are_made_in_the_systems_precision(system: System) -> None:
    system.dtype = torch.bfloat16
    assert step_of(system).view("crops").values.dtype == torch.bfloat16
