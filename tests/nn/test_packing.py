"""Packing is a change of layout and nothing else."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_scale.nn.packing import Packing

valid_tokens = st.integers(1, 7).flatmap(
    lambda length: st.lists(
        st.lists(st.booleans(), min_size=length, max_size=length), min_size=1, max_size=6
    )
)


@given(valid_tokens)
def test_unpacking_brings_valid_tokens_back_to_their_places(rows: list[list[bool]]) -> None:
    valid = torch.tensor(rows)
    padded = torch.randn(*valid.shape, 3, dtype=torch.float64, requires_grad=True)
    packing = Packing.of(valid)
    packed = packing.pack(padded)
    assert packing.total == int(valid.sum())
    assert packing.longest == int(valid.sum(1).max())
    torch.testing.assert_close(packed, padded[valid])
    back = packing.unpack(packed)
    torch.testing.assert_close(back, torch.where(valid[..., None], padded, 0))
    weight = torch.randn_like(back)
    (gradient,) = torch.autograd.grad((back * weight).sum(), padded)
    torch.testing.assert_close(gradient, torch.where(valid[..., None], weight, 0))


@given(valid_tokens)
def test_places_sequences_and_ends_agree_with_the_layout(rows: list[list[bool]]) -> None:
    valid = torch.tensor(rows)
    packing = Packing.of(valid)
    sequence, place = valid.nonzero(as_tuple=True)
    assert packing.sequence.tolist() == sequence.tolist()
    assert packing.place.tolist() == place.tolist()
    assert packing.ends.tolist() == [0, *valid.sum(1).cumsum(0).tolist()]
    per_sequence = torch.randn(len(valid), 2)
    torch.testing.assert_close(packing.spread(per_sequence), per_sequence[sequence])


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any))
def test_groups_hold_every_token_once(lengths: list[int]) -> None:
    packing = Packing.of(torch.arange(41) < torch.tensor(lengths)[:, None])
    rows = torch.arange(packing.total, dtype=torch.float64)
    parts = packing.to_groups(rows)
    assert packing.from_groups(parts).tolist() == rows.tolist()
    assert sum(group.num for group in packing.groups) == sum(length > 0 for length in lengths)
    padded = sum(group.num * group.longest**2 for group in packing.groups)
    shortest_allowed = [length**2 for length in lengths]
    # Lengths of a group lie within a quarter and four tokens of each other.
    bound = sum(((length + 4) / 0.75) ** 2 for length in lengths if length)
    assert sum(shortest_allowed) <= padded <= bound


def test_gradients_of_regrouping_are_those_of_plain_indexing() -> None:
    packing = Packing.of(torch.arange(9) < torch.tensor([9, 2, 7, 1])[:, None])
    rows = torch.randn(packing.total, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: packing.from_groups([part**2 for part in packing.to_groups(x)]), rows
    )


def test_sequences_without_padding_are_a_view() -> None:
    packing = Packing.of(torch.ones(3, 4, dtype=torch.bool))
    padded = torch.randn(3, 4, 2)
    assert packing.pack(padded).data_ptr() == padded.data_ptr()
    assert packing.index is None
    assert packing.common == 4
