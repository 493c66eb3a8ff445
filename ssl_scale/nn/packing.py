"""Where sequences of different lengths lie in one packed tensor ``[total, width]``.

Padding is taken out once, before the blocks, and put back once, after them; in between every layer
costs what the tokens cost. If no token is padded, packing is a reshape.

Lengths are known on the host: kernels want the longest, and shapes the total. On a GPU reading them
waits for the device, so it happens once a forward pass, and not at all for sequences that are known
to be full (`Packing.full`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.autograd import Function


class _Take(Function):
    """Rows at places of which none comes twice: the gradient is copied back, not summed.

    torch's own gradient of `index_select` adds up, which on a CPU costs more than the attention.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor) -> Tensor:
        ctx.num = rows.shape[0]
        ctx.save_for_backward(places)
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        whole = gradients[0].new_zeros(ctx.num, *gradients[0].shape[1:])
        return whole.index_copy_(0, places, gradients[0]), None


class _Spread(Function):
    """Rows of which some stand in for padding: these get no gradient, so only `back` is read."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return gradients[0].index_select(0, back), None, None


@dataclass(frozen=True, eq=False)
class Group:
    """Sequences of similar length, padded to the longest of them.

    Args:
        num: number of sequences.
        longest: length of the longest.
        rows: ``[num * longest]`` places in the packed tensor; padding repeats the first place.
        inside: ``[num, longest]`` bool, false for padding; None if there is none.
    """

    num: int
    longest: int
    rows: Tensor
    inside: Tensor | None


@dataclass(frozen=True, eq=False)
class Packing:
    """The lengths of sequences and the way from padded to packed and back.

    Args:
        lengths: tokens of each sequence; an absent one has none.
        padded: tokens of a sequence when padded.
        index: ``[total]`` place of each packed token in the padded tensor, flattened; None if the
            two are the same.
        device: of the tensors.
        is_row: whether the padded tensor is one row that holds all sequences, end to end.
    """

    lengths: tuple[int, ...]
    padded: int
    index: Tensor | None
    device: torch.device
    is_row: bool = False

    @classmethod
    def full(cls, num: int, length: int, device: torch.device) -> "Packing":
        """Sequences without padding."""
        return cls((length,) * num, length, None, device)

    @classmethod
    def of(cls, valid: Bool[Tensor, "sequences tokens"]) -> "Packing":
        """Sequences of the valid tokens; they may lie anywhere."""
        num, padded = valid.shape
        lengths = tuple(valid.sum(1).tolist())
        if all(length == padded for length in lengths):
            return cls.full(num, padded, valid.device)
        return cls(lengths, padded, valid.flatten().nonzero()[:, 0], valid.device)

    @classmethod
    def row(cls, lengths: Int[Tensor, " sequences"], places: int) -> "Packing":
        """Sequences end to end in one row of so many places; any rest is padding."""
        known = tuple(lengths.tolist())
        index = None
        if sum(known) != places:
            index = torch.arange(sum(known), device=lengths.device)
        return cls(known, places, index, lengths.device, is_row=True)

    @property
    def _rows(self) -> int:
        return 1 if self.is_row else len(self.lengths)

    @cached_property
    def total(self) -> int:
        """Number of packed tokens."""
        return sum(self.lengths)

    @cached_property
    def longest(self) -> int:
        """Length of the longest sequence."""
        return max(self.lengths, default=0)

    @cached_property
    def common(self) -> int | None:
        """The length that all sequences share that have any tokens; None if they differ."""
        return self.longest if {*self.lengths} <= {0, self.longest} else None

    @cached_property
    def _lengths(self) -> Int[Tensor, " sequences"]:
        return torch.tensor(self.lengths, dtype=torch.int64).to(self.device, non_blocking=True)

    @cached_property
    def sequence(self) -> Int[Tensor, " total"]:
        """Which sequence each packed token belongs to."""
        ids = torch.arange(len(self.lengths), device=self.device)
        return ids.repeat_interleave(self._lengths, output_size=self.total)

    @cached_property
    def place(self) -> Int[Tensor, " total"]:
        """Place of each packed token in its padded sequence."""
        if self.index is None:
            return torch.arange(self.padded, device=self.device).repeat(self._rows)
        return self.index % self.padded

    @cached_property
    def ends(self) -> Int[Tensor, " boundaries"]:
        """Cumulative lengths, from 0, int32: what variable-length kernels take."""
        return torch.nn.functional.pad(self._lengths.cumsum(0), (1, 0)).to(torch.int32)

    def pack(
        self, padded: Shaped[Tensor, "sequences tokens *rest"]
    ) -> Shaped[Tensor, "total *rest"]:
        """Take the padding out."""
        flat = padded.flatten(0, 1)
        if self.index is None:
            return flat
        return _Take.apply(flat, self.index)  # type: ignore[no-any-return,no-untyped-call]

    def unpack(
        self, packed: Shaped[Tensor, "total *rest"]
    ) -> Shaped[Tensor, "sequences tokens *rest"]:
        """Put the padding back, as zeros."""
        shape = (self._rows, self.padded, *packed.shape[1:])
        if self.index is None:
            return packed.view(shape)
        flat = packed.new_zeros(shape[0] * shape[1], *shape[2:])
        return flat.index_copy(0, self.index, packed).view(shape)

    def spread(self, values: Shaped[Tensor, "sequences *rest"]) -> Shaped[Tensor, "total *rest"]:
        """Give every token the value of its sequence."""
        return values.index_select(0, self.sequence)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The sequences by similar length, for kernels that want a rectangle."""
        lengths = torch.tensor(self.lengths)
        starts = lengths.cumsum(0) - lengths
        return tuple(
            self._group(starts[chosen], lengths[chosen]) for chosen in _similar(self.lengths)
        )

    def _group(self, starts: Tensor, lengths: Tensor) -> Group:
        longest = int(lengths.max())
        steps = torch.arange(longest)
        inside = steps < lengths[:, None]
        rows = starts[:, None] + torch.where(inside, steps, 0)
        return Group(
            num=len(lengths),
            longest=longest,
            rows=rows.flatten().to(self.device),
            inside=None if bool(inside.all()) else inside.to(self.device),
        )

    def to_groups(self, packed: Shaped[Tensor, "total *rest"]) -> list[Tensor]:
        """Each group's rows ``[num, longest, *rest]``.

        What is computed from a place of padding must not reach the result: it gets no gradient.
        """
        rows = torch.cat([group.rows for group in self.groups])
        taken: Tensor = _Spread.apply(packed, rows, self._back)  # type: ignore[no-untyped-call]
        parts = taken.split([len(group.rows) for group in self.groups])  # type: ignore[no-untyped-call]
        return [
            part.view(group.num, group.longest, *packed.shape[1:])
            for part, group in zip(parts, self.groups, strict=True)
        ]

    def from_groups(self, parts: Sequence[Tensor]) -> Shaped[Tensor, "total *rest"]:
        """The inverse of `to_groups`, leaving padding out."""
        rows = torch.cat([part.flatten(0, 1) for part in parts])
        return _Take.apply(rows, self._back)  # type: ignore[no-any-return,no-untyped-call]

    @cached_property
    def _back(self) -> Int[Tensor, " total"]:
        """Place of each packed token among the groups' rows, one group after the other."""
        rows = torch.cat([group.rows for group in self.groups])
        inside = torch.cat(
            [
                torch.ones_like(group.rows, dtype=torch.bool)
                if group.inside is None
                else group.inside.flatten()
                for group in self.groups
            ]
        )
        places = inside.nonzero()[:, 0]
        return torch.empty_like(places).index_copy_(0, rows[places], places)


def _similar(lengths: Sequence[int]) -> list[list[int]]:
    """Sequences that have tokens, by similar length.

    A group ends where padding would cost more than about half of its attention: an attention map
    grows with the square of the length.
    """
    order = sorted((i for i, length in enumerate(lengths) if length), key=lambda i: -lengths[i])
    groups: list[list[int]] = []
    for i in order:
        if groups and lengths[i] >= 0.75 * lengths[groups[-1][0]] - 4:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
