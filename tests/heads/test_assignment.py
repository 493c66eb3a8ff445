"""Assignments against the papers' algorithms, written with loops."""

import math

import pytest
import torch
from torch import Tensor

from ssl_scale.heads.assignment import Assignment, Centring, SinkhornKnopp, sinkhorn_knopp

NUM, PROTOTYPES = 7, 4


def scores(num: int = NUM, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num, PROTOTYPES, generator=generator, dtype=torch.float64) * 2 - 1


def all_valid(x: Tensor) -> Tensor:
    return torch.ones(x.shape[:-1], dtype=torch.bool)


def naive_sinkhorn(
    rows: list[list[float]], temperature: float, iterations: int
) -> list[list[float]]:
    """The listing of SwAV's appendix A.1, number by number: Q is prototypes by samples."""
    num, prototypes = len(rows), len(rows[0])
    q = [[math.exp(row[k] / temperature) for row in rows] for k in range(prototypes)]
    whole = sum(map(sum, q))
    q = [[value / whole for value in prototype] for prototype in q]
    for _ in range(iterations):
        q = [[value / sum(prototype) / prototypes for value in prototype] for prototype in q]
        each = [sum(prototype[i] for prototype in q) for i in range(num)]
        q = [[prototype[i] / each[i] / num for i in range(num)] for prototype in q]
    return [[q[k][i] * num for k in range(prototypes)] for i in range(num)]


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_sinkhorn_knopp_is_the_papers_listing(iterations, temperature):
    x = scores()
    assign = SinkhornKnopp(iterations, prototypes=PROTOTYPES)
    ours = assign(x, all_valid(x), temperature, 0)
    expected = naive_sinkhorn(x.tolist(), temperature, iterations)
    for row, wanted in zip(ours.tolist(), expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-9)


def test_sinkhorn_knopp_gives_every_prototype_its_share():
    ours = sinkhorn_knopp(scores(40) / 0.5, iterations=60)
    torch.testing.assert_close(ours.sum(0), torch.full((PROTOTYPES,), 10.0).double())
    torch.testing.assert_close(ours.sum(1), torch.ones(40).double())


def test_sinkhorn_knopp_survives_scores_whose_exponential_does_not():
    x = scores().float()
    ours = sinkhorn_knopp(x / 0.05 + 100, iterations=3)
    torch.testing.assert_close(ours, sinkhorn_knopp(x / 0.05, iterations=3), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(ours.sum(1), torch.ones(NUM))


@pytest.mark.parametrize("kind", [Centring, SinkhornKnopp])
def test_rows_that_do_not_exist_count_nowhere(kind):
    def assigned(assign: Assignment, x: Tensor, valid: Tensor) -> Tensor:
        first = assign(x, valid, 0.1, 0)
        return torch.cat([first, assign(x, valid, 0.1, 1)], -1)

    x = scores()
    with_more = torch.cat([x, torch.full((2, PROTOTYPES), torch.nan).double()])
    valid = torch.arange(len(with_more)) < NUM
    alone = assigned(kind(prototypes=PROTOTYPES), x, all_valid(x))
    more = assigned(kind(prototypes=PROTOTYPES), with_more, valid)
    torch.testing.assert_close(more[:NUM], alone)
    assert not more[NUM:].any()


@pytest.mark.parametrize("kind", [Centring, SinkhornKnopp])
def test_without_rows_nothing_happens(kind):
    assign = kind(prototypes=PROTOTYPES).double()
    before = {name: buffer.clone() for name, buffer in assign.named_buffers()}
    assert assign(scores(0), all_valid(scores(0)), 0.1, 3).shape == (0, PROTOTYPES)
    after = assign(scores(), all_valid(scores()), 0.1, 4)
    fresh = kind(prototypes=PROTOTYPES)(scores(), all_valid(scores()), 0.1, 4)
    assert torch.equal(after, fresh)
    assert not before or not assign.centre.any()


def test_centring_is_equation_4_of_dino_one_step_late():
    """c <- m c + (1 - m) mean; P = softmax((g - c) / t) with the centre of the steps before."""
    assign, centre = Centring(0.9, prototypes=PROTOTYPES).double(), [0.0] * PROTOTYPES
    for index in range(4):
        x = scores(seed=index)
        ours = assign(x, all_valid(x), 0.1, index)
        for i in range(NUM):
            logits = [(float(x[i, k]) - centre[k]) / 0.1 for k in range(PROTOTYPES)]
            whole = sum(map(math.exp, logits))
            expected = [math.exp(logit) / whole for logit in logits]
            assert ours[i].tolist() == pytest.approx(expected, rel=1e-9)
        for k in range(PROTOTYPES):
            centre[k] = 0.9 * centre[k] + 0.1 * float(x[:, k].mean())


def test_micro_batches_of_a_step_move_the_centre_once():
    whole, parts = (Centring(prototypes=PROTOTYPES).double() for _ in range(2))
    for index in range(3):
        x = scores(seed=index)
        expected = whole(x, all_valid(x), 0.1, index)
        for rows, wanted in zip(x.split([2, 5]), expected.split([2, 5]), strict=True):
            torch.testing.assert_close(parts(rows, all_valid(rows), 0.1, index), wanted)


def test_evaluation_reads_the_centre_and_leaves_it():
    assign = Centring(prototypes=PROTOTYPES).double()
    x = scores()
    assign(x, all_valid(x), 0.1, 0)
    before = {name: buffer.clone() for name, buffer in assign.named_buffers()}
    assign.eval()
    seen = assign(x, all_valid(x), 0.1, 1)
    assert all(torch.equal(before[name], buffer) for name, buffer in assign.named_buffers())
    torch.testing.assert_close(seen, assign.train()(x, all_valid(x), 0.1, 1))


def test_the_centre_stays_in_full_precision():
    assert Centring(prototypes=PROTOTYPES).bfloat16().centre.dtype == torch.float32
