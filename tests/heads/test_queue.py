import copy

import pytest
import torch
from torch import Tensor

from ssl_scale.heads.queue import Queue


def rows(*numbers: int) -> Tensor:
    return torch.tensor([[float(number)] * 2 for number in numbers]).view(-1, 2)


def push(queue: Queue, *numbers: int) -> None:
    there = torch.ones(len(numbers), dtype=torch.bool)
    queue.push(rows(*numbers), there, torch.tensor(numbers, dtype=torch.int64))


def held(queue: Queue) -> set[int]:
    """Numbers of the rows pushed so far that are still there."""
    return {int(row[0]) for row in queue.rows if float(row[0]) >= 2}


def test_it_starts_with_the_same_rows_of_unit_length_everywhere():
    torch.manual_seed(1)
    one = Queue(5, 3)
    torch.manual_seed(2)
    assert torch.equal(one.rows, Queue(5, 3).rows)
    torch.testing.assert_close(one.rows.norm(dim=1), torch.ones(5))


def test_the_newest_rows_push_the_oldest_out():
    queue = Queue(5, 2)
    for numbers, left in (
        ((10, 11), {10, 11}),
        ((), {10, 11}),
        ((12, 13, 14), {10, 11, 12, 13, 14}),
        ((15,), {11, 12, 13, 14, 15}),
        ((16, 17, 18, 19), {15, 16, 17, 18, 19}),
        (tuple(range(20, 33)), {28, 29, 30, 31, 32}),
        ((33,), {29, 30, 31, 32, 33}),
    ):
        push(queue, *numbers)
        assert held(queue) == left


def test_absent_rows_are_not_taken():
    queue = Queue(3, 2)
    queue.push(rows(10, 11, 12), torch.tensor([True, False, True]), torch.arange(3))
    assert held(queue) == {10, 12}
    push(queue, 13)
    assert held(queue) == {10, 12, 13}


def test_which_rows_leave_first_does_not_depend_on_the_order_in_which_ranks_brought_them():
    one, other = Queue(4, 2), Queue(4, 2)
    push(one, 10, 11, 12), push(one, 13, 14, 15)
    push(other, 12, 10, 11), push(other, 15, 13, 14)
    assert torch.equal(one.rows, other.rows)
    assert held(one) == {12, 13, 14, 15}


def test_every_batch_of_a_step_reads_what_was_there_when_the_step_began():
    queue = Queue(4, 2)
    before = queue(0)
    push(queue, 10, 11)
    assert torch.equal(queue(0), before)
    push(queue, 12)
    assert torch.equal(queue(0), before)
    assert {int(number) for number in queue(1)[:, 0]} >= {10, 11, 12}
    assert held(queue) == {10, 11, 12}


def test_a_backward_pass_after_the_push_still_knows_what_was_read():
    queue, x = Queue(4, 2), torch.ones(1, 2, requires_grad=True)
    read = queue(0)
    loss = (x @ read.T).sum()
    expected = read.sum(0, keepdim=True).clone()
    push(queue, 10, 11)
    loss.backward()
    torch.testing.assert_close(x.grad, expected)


def test_nothing_is_pushed_in_evaluation():
    queue = Queue(4, 2)
    push(queue, 10)
    before = copy.deepcopy(queue.state_dict())
    queue.eval()
    push(queue, 11)
    torch.testing.assert_close(queue.state_dict(), before)
    assert torch.equal(queue(7), queue.rows)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_rows_keep_at_least_full_precision(dtype):
    queue = Queue(4, 2).to(dtype)
    assert queue.rows.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    assert queue.next.dtype == torch.int64


def test_a_queue_goes_on_where_it_was_saved():
    one, other = Queue(4, 2), Queue(4, 2)
    push(one, 10, 11, 12)
    other.load_state_dict(one.state_dict())
    push(one, 13, 14), push(other, 13, 14)
    assert torch.equal(one.rows, other.rows)
