from pathlib import Path

import pytest

from ssl_scale.optim.schedule import Constant, Linear
from ssl_scale.recipe.reading import read_recipe
from tests.recipe.writing import SOUND, faults_of, write

SOURCE = "digits: {data: digits, fields: [image, label], feeds: [all]"


def with_data(line: str = "", source: str = "") -> str:
    text = SOUND.replace(SOURCE, SOURCE + source)
    return text.replace("  global_batch: 12\n", f"  global_batch: 12\n{line}")


def test_weights_are_numbers_or_schedules(tmp_path: Path) -> None:
    def weight(text: str) -> object:
        path = write(tmp_path, with_data(source=text))
        return read_recipe(path, require_data=False).data.sources["digits"].weight

    assert weight("").part is Constant
    assert weight(", weight: 3").build()(0.5) == 3
    schedule = weight(", weight: {type: Linear, start: 1, end: 0}")
    assert schedule.part is Linear and schedule.build()(0.25) == 0.75


AT = "7: data.sources.digits"
FIXED = "whose parts are fixed, but is"


@pytest.mark.parametrize(
    ("line", "source", "fault"),
    [
        ("", ", weight: 0", f"{AT}: weight must be above 0, but is 0"),
        ("", ", weight: lots", f"{AT}.weight: must be a valid number, but is 'lots'"),
        ("", ", end: dorp", f"{AT}.end: must be 'repeat', 'stop' or 'drop', but is 'dorp'"),
        ("  mixture: {unti: sample}\n", "",
         "3: data.mixture.unti: this section takes no 'unti'; did you mean 'unit'?"),
        ("  mixture: {unit: smaple}\n", "",
         "3: data.mixture.unit: must be 'batch', 'sample' or 'token', but is 'smaple'"),
        ("  mixture: {temperature: 0}\n", "",
         "3: data.mixture.temperature: must be greater than 0, but is 0"),
        ("  per_step: all\n  mixture: {unit: sample}\n", "",
         f"4: data.mixture.unit: must not be given beside data.per_step: all, {FIXED} 'sample'; "
         "leave one of the two out"),
        ("  per_step: all\n", ", weight: {type: Cosine, start: 1, end: 0}",
         f"8: data.sources.digits.weight: must be a number where data.per_step is all, {FIXED} a "
         "schedule; leave per_step out, and write data.mixture: {unit: sample}"),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed_is_a_fault(
    line: str, source: str, fault: str, tmp_path: Path
) -> None:
    assert faults_of(write(tmp_path, with_data(line, source))) == [fault]
