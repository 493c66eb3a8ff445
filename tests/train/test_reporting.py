"""The line that people watch while a run goes on."""

import os
import re
from functools import partial
from pathlib import Path

from tests.train.tiny import fit_ranks, make_recipe


def write_errors_to(path: Path) -> None:
    """Send what this process says to a file."""
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), 2)


def test_the_bar_shows_rates_time_left_and_the_share_of_waiting(tmp_path: Path) -> None:
    said = tmp_path / "said.txt"
    fit_ranks(make_recipe(tmp_path), tmp_path / "run", change=partial(write_errors_to, said))
    assert re.search(
        r"step 8 of 8, .*(step/s|s/step), 00:00 left, loss \d+\.\d+, [\d,]+ samples/s, "
        r"\d+% waiting for data",
        said.read_text(),
    )
