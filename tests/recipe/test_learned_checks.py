"""What cannot be learned is a fault of the recipe."""

from pathlib import Path

import pytest

from ssl_scale.data.mixture.bandit_weights import BanditWeights
from ssl_scale.data.mixture.loss_weights import LossWeights
from ssl_scale.recipe.reading import read_recipe
from tests.recipe.writing import SOUND, faults_of, write

SOURCE = "digits: {data: digits, fields: [image, label], feeds: [all]}"
MORE = "{data: digits, fields: [image, label], feeds: [all]"


def with_learned(learned: str, more: str | None = "}", data: str = "", steps: int = 1000) -> str:
    """A sound recipe of two sources and a mixture that learns."""
    second = "" if more is None else f"\n    more: {MORE}{more}"
    line = f"  mixture: {{learned: {learned}{data}}}\n"
    text = SOUND.replace(SOURCE, SOURCE + second)
    text = text.replace("steps: 10}", f"steps: {steps}}}")
    return text.replace("  global_batch: 12\n", f"  global_batch: 12\n{line}")


def test_a_rule_is_a_part_with_the_steps_of_a_round_beside(tmp_path: Path) -> None:
    def learned(text: str) -> object:
        path = write(tmp_path, with_learned(text))
        return read_recipe(path, require_data=False).data.mixture.learned

    bandit = learned("{type: BanditWeights, smoothing: 0.5}")
    assert (bandit.every, bandit.spec.part, bandit.spec.arguments) == (
        100, BanditWeights, {"smoothing": 0.5},
    )  # fmt: skip
    doremi = learned("{type: LossWeights, every: 7, references: {digits: 1, more: 2.5}}")
    assert (doremi.every, doremi.spec.part) == (7, LossWeights)
    assert doremi.spec.build().references == {"digits": 1, "more": 2.5}
    assert read_recipe(write(tmp_path, SOUND), require_data=False).data.mixture.learned is None


BANDIT = "{type: BanditWeights}"
AT = "data.mixture.learned"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (with_learned("{type: BandidWeights}"),
         f"3: {AT}.type: there is no WeightRule 'BandidWeights'; did you mean 'BanditWeights'?"),
        (with_learned("{type: BanditWeights, every: 0}"),
         f"3: {AT}.every: must be greater than or equal to 1, but is 0"),
        (with_learned("{type: BanditWeights, smoothing: 1}"),
         f"3: {AT}.smoothing: must be less than 1, but is 1"),
        (with_learned("{type: BanditWeights, evry: 3}"),
         f"3: {AT}.evry: BanditWeights takes no 'evry'; did you mean 'every'?"),
        (with_learned("{type: LossWeights}"), f"3: {AT}.references: must be given to LossWeights"),
        (with_learned("{type: LossWeights, references: {digits: 1, mroe: 1, more: 2}}"),
         f"3: {AT}.references.mroe: data.sources has no 'mroe'; did you mean 'more'?"),
        (with_learned("{type: LossWeights, references: {digits: 1}}"),
         f"3: {AT}.references: must give source 'more' the loss that it should come down to"),
        (with_learned(BANDIT, more=None), f"3: {AT}: needs two sources, but there is 1"),
        (with_learned(BANDIT, more=", end: drop}"),
         "9: data.sources.more.end: must be 'repeat' where weights are learned, but is 'drop'"),
        (with_learned(BANDIT, more=", weight: {type: Linear, start: 1, end: 0}}"),
         "9: data.sources.more.weight: must be a number where weights are learned from it on, but "
         "is a schedule"),
        (with_learned("{type: BanditWeights, every: 500}"),
         f"3: {AT}.every: must be below half of train.steps, 1000, or nothing that is learned "
         "comes into force, but is 500"),
        (with_learned(BANDIT, steps=200),
         f"3: {AT}.every: must be below half of train.steps, 200, or nothing that is learned "
         "comes into force, but is 100"),
        (with_learned("{type: BanditWeights, every: 1}"),
         f"3: {AT}.every: must be at least the number of sources, 2, since each step draws one "
         "(data.mixture.unit: batch), but is 1"),
        (with_learned("{type: BanditWeights, every: 1}", data=", unit: sample"), None),
        (with_learned(BANDIT).replace("  mixture:", "  per_step: all\n  mixture:"),
         f"4: {AT}: must not be given beside data.per_step: all, whose parts are fixed; leave "
         "per_step out, and write data.mixture.unit: sample"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_a_fault(text: str, fault: str | None, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    if fault is None:
        read_recipe(path, require_data=False)
    else:
        assert faults_of(path) == [fault]


def test_a_run_that_may_go_back_neither_learns_weights_nor_ends_with_its_data(
    tmp_path: Path,
) -> None:
    text = with_learned(BANDIT, more=", end: drop}")
    text = text.replace("steps: 1000}", "steps: 1000, guard: {spike: 10}}")
    faults = [
        fault.partition(" (train.guard.spike)")[0] for fault in faults_of(write(tmp_path, text))
    ]
    at = "must not be given where a spike may send the run back"
    assert f"3: {AT}: {at}" in faults
    assert (
        "9: data.sources.more.end: must be 'repeat' where a spike may send the run back" in faults
    )
