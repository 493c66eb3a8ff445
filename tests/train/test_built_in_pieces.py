"""A model that is larger than one rank's memory can be built under ZeRO-3."""

from pathlib import Path

import pytest

from tests.train.rank_peaks import WITH_TEACHER, WITHOUT_TEACHER, peaks
from tests.train.tiny import make_recipe

pytestmark = [pytest.mark.dist, pytest.mark.slow]


@pytest.mark.parametrize("settings", [WITHOUT_TEACHER, WITH_TEACHER], ids=["student", "teacher"])
def test_no_rank_ever_holds_the_whole_model_while_it_is_built(
    settings: tuple[str, ...], tmp_path: Path
) -> None:
    ranks = peaks(make_recipe(tmp_path), tmp_path / "peaks", 2, *settings)
    for rank in ranks:
        assert rank["whole"] > 350e6
        # Half, and a few whole tensors on their way into pieces.
        assert 0.45 < rank["built"] / rank["whole"] < 0.6
