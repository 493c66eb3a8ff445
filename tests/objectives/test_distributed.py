"""Ranks with unequal and zero counts equal one process, in value, gradient and statistics."""

import pytest
import torch

from ssl_scale import dist
from tests.distributed import run_ranks
from tests.objectives.cases import CASES, Outcome, train_step
from tests.objectives.steps import make_samples

pytestmark = pytest.mark.dist
NUM = 13

# Sample 2, 6, 10 lack the image, 3 and 8 the text; 1, 4, 7, 10 the label.
SPLITS: dict[str, list[list[int]]] = {
    "unequal counts": [[0, 1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 12]],
    "a rank whose samples are all absent": [[0, 1, 4, 5, 7, 9, 11, 12], [2, 6, 10]],
    "a first rank without texts": [[3, 8], [0, 1, 2, 4, 5, 6, 7, 9, 10, 11, 12]],
    "a first rank without samples": [[], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]],
    "four ranks": [[0, 1, 2, 3, 4], [5], [6], [7, 8, 9, 10, 11, 12]],
}


def all_cases_on_this_rank(split: list[list[int]]) -> dict[str, Outcome]:
    rows = split[dist.rank()]
    return {name: train_step(name, make_samples(NUM), [rows]) for name in CASES}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[dict[str, Outcome]]]:
    return {
        kind: run_ranks(all_cases_on_this_rank, len(split), split) for kind, split in SPLITS.items()
    }


@pytest.mark.parametrize("kind", SPLITS)
@pytest.mark.parametrize("name", CASES)
def test_ranks_equal_one_process(name, kind, outcomes):
    joined = [row for rows in SPLITS[kind] for row in rows]
    alone = train_step(name, make_samples(NUM), [joined])
    assert alone.value != 0
    whole = torch.cat([gradient.flatten() for gradient in alone.gradients.values()]).norm()
    for each in outcomes[kind]:
        torch.testing.assert_close(each[name].value, alone.value, rtol=1e-12, atol=0)
        for path, gradient in alone.gradients.items():
            # The gradient of an attention key's bias is zero; only noise is left of it.
            error = (each[name].gradients[path] - gradient).norm()
            assert error <= 1e-12 * max(gradient.norm(), 0.01 * whole), path
        for path, buffer in alone.buffers.items():
            torch.testing.assert_close(each[name].buffers[path], buffer, rtol=1e-12, atol=1e-14)
