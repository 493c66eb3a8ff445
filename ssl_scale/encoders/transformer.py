"""What transformer encoders share: from a stem's tokens to `Features`.

Crops are folded into the batch: the trunk sees ``batch * crops`` sequences. The order is: hidden
tokens are replaced, positions added, hidden tokens dropped, the prefix put before, padding taken
out, blocks run, padding put back.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl_scale.encoders.encoder import Encoder
from ssl_scale.nn.packing import Packing
from ssl_scale.nn.position import (
    LearnedPosition,
    Rotation,
    SinCosPosition,
    rotary_angles,
    rotation,
)
from ssl_scale.nn.tokens import Prefix
from ssl_scale.nn.trunk import Trunk
from ssl_scale.rng import Draw
from ssl_scale.types import Attend, Features, Mask, View

Position: TypeAlias = Literal["learned", "sincos", "rotary"]
Pool: TypeAlias = Literal["cls", "mean", "first", "last"]


def sequence_draw(view: View) -> Draw:
    """The randomness of each crop, ``[batch * crops]``; it does not depend on the other crops."""
    batch, crops = len(view.seeds), view.valid.shape[1]
    ids = torch.arange(crops, device=view.seeds.device).repeat(batch)
    return Draw(view.seeds.repeat_interleave(crops)).child("crop", ids)


def hidden_by(mask: Mask | None, mode: str) -> Bool[Tensor, "sequences tokens"] | None:
    """What a mask of the given mode hides; None if there is no such mask."""
    return mask.hidden.flatten(0, 1) if mask is not None and mask.mode == mode else None


class TransformerEncoder(Encoder):
    """Positions, prefix and trunk around the stem of a subclass.

    Args:
        trunk: the blocks.
        width: features of a token.
        head_width: features of an attention head.
        position: how a token knows its place.
        grid: the grid that learned positions are made for.
        pool: what `Features.pooled` is: a [CLS] token, the mean, the first or the last of the other
            tokens.
        registers: further prefix tokens.
    """

    def __init__(
        self,
        trunk: Trunk,
        width: int,
        head_width: int,
        position: Position,
        grid: tuple[int, ...],
        pool: Pool,
        registers: int,
    ) -> None:
        super().__init__()
        self.width, self.head_width, self.pool = width, head_width, pool
        self.num_prefix = registers + (pool == "cls")
        self.is_rotary = position == "rotary"
        self.position: nn.Module | None = None
        if position == "learned":
            self.position = LearnedPosition(grid, width)
        elif position == "sincos":
            self.position = SinCosPosition()
        self.prefix = Prefix(self.num_prefix, width) if self.num_prefix else None
        self.trunk = trunk

    @property
    def depth(self) -> int:
        """Number of blocks, ``layer.0`` to ``layer.{depth - 1}`` of `Features.kept`."""
        return len(self.trunk.blocks)

    def encode(
        self,
        tokens: Float[Tensor, "sequences tokens width"],
        valid: Bool[Tensor, "sequences tokens"],
        view: View,
        grid: tuple[int, ...],
        mask: Mask | None,
        attend: Attend,
        keep: Sequence[str],
        is_full: bool = False,
    ) -> Features:
        """From stem tokens, already filled where hidden, to features.

        Args:
            tokens: of all crops, at every place of the grid.
            valid: which of them are real.
            view: what they were made from.
            grid: their layout.
            mask: what is dropped, if its mode is ``drop``.
            attend: which tokens a token sees.
            keep: intermediates to keep.
            is_full: whether sequences are full or wholly absent. Absent ones then run along, as
                zeros, so that no length need be read from the device.
        """
        if view.lengths is not None:
            return self._encode_row(tokens, valid, view, mask, attend, keep)
        if self.position is not None:
            tokens = self.position(tokens, grid)
        origin = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[0], -1)
        dropped = hidden_by(mask, "drop")
        if dropped is not None:
            origin, valid = visible_places(valid & ~dropped)
            tokens = tokens.gather(1, origin[..., None].expand(-1, -1, tokens.shape[-1]))
            is_full = False
        if self.prefix is not None:
            tokens = self.prefix(tokens)
        present = valid.any(1, keepdim=True)
        real = torch.cat([present.expand(-1, self.num_prefix), valid], dim=1)
        num, length = real.shape
        packing = Packing.full(num, length, real.device) if is_full else Packing.of(real)
        out, kept = self.trunk(
            packing.pack(tokens),
            packing=packing,
            attend=attend,
            rotation=self._rotation(grid, origin, packing),
            draw=sequence_draw(view),
            keep=keep,
        )
        padded = {name: packing.unpack(value) for name, value in {"": out, **kept}.items()}
        if is_full:
            padded = {name: torch.where(real[..., None], x, 0) for name, x in padded.items()}
        return self._features(padded, valid, origin, tuple(view.valid.shape[:2]))

    def _encode_row(
        self,
        tokens: Float[Tensor, "1 places width"],
        valid: Bool[Tensor, "1 places"],
        view: View,
        mask: Mask | None,
        attend: Attend,
        keep: Sequence[str],
    ) -> Features:
        """A packed view: positions begin anew with each sample, and attention stays inside it."""
        assert view.lengths is not None
        if self.num_prefix or hidden_by(mask, "drop") is not None:
            raise ValueError(
                "packed samples need an encoder without tokens of its own (pool: mean, first or "
                "last, and registers: 0) and a mask that drops no tokens; or take `pack` off the "
                "source"
            )
        packing = Packing.row(view.lengths, tokens.shape[1])
        grid = (max(packing.longest, 1),)
        places = view.documents()[1].clamp(max=grid[0] - 1)
        if self.position is not None:
            tokens = self.position(tokens, grid, places)
        out, kept = self.trunk(
            packing.pack(tokens),
            packing=packing,
            attend=attend,
            rotation=self._rotation(grid, places[None], packing),
            draw=sequence_draw(view),
            keep=keep,
        )
        pooled = pool_row(out, packing, view.lengths, self.pool)
        return Features(
            tokens=packing.unpack(out)[None],
            valid=valid[None],
            pooled=pooled[:, None],
            prefix=pooled.new_zeros(len(pooled), 1, 0, pooled.shape[-1]),
            origin=places[None, None],
            kept={name: packing.unpack(value)[None] for name, value in kept.items()},
        )

    def _rotation(
        self, grid: tuple[int, ...], origin: Int[Tensor, "sequences tokens"], packing: Packing
    ) -> Rotation | None:
        if not self.is_rotary:
            return None
        angles = rotary_angles(grid, self.head_width, origin.device)
        prefix = origin.new_full((origin.shape[0], self.num_prefix), -1)
        return rotation(angles, packing.pack(torch.cat([prefix, origin], dim=1)))

    def _features(
        self, padded: dict[str, Tensor], valid: Tensor, origin: Tensor, shape: tuple[int, ...]
    ) -> Features:
        def unfold(x: Tensor) -> Tensor:
            return x.reshape(shape + x.shape[1:])

        start = self.num_prefix
        last = padded.pop("")
        prefix, tokens = last[:, :start], last[:, start:]
        return Features(
            tokens=unfold(tokens),
            valid=unfold(valid),
            pooled=unfold(self._pooled(prefix, tokens, valid)),
            prefix=unfold(prefix),
            origin=unfold(origin),
            kept={name: unfold(value[:, start:]) for name, value in padded.items()},
        )

    def _pooled(self, prefix: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
        # Tokens that are not valid are zero, so absent samples pool to zero and get no gradient.
        if self.pool == "cls":
            return prefix[:, 0]
        if self.pool == "mean":
            return tokens.sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
        if not tokens.shape[1]:
            return tokens.sum(1)
        if self.pool == "first":
            return tokens[:, 0]
        places = torch.arange(valid.shape[1], device=valid.device)
        last = torch.where(valid, places, 0).amax(1)
        return tokens[torch.arange(len(last), device=last.device), last]


def pool_row(
    packed: Float[Tensor, "total width"],
    packing: Packing,
    lengths: Int[Tensor, " samples"],
    pool: Pool,
) -> Float[Tensor, "samples width"]:
    """One vector for each sequence of a row; zero for one without tokens."""
    sums = packed.new_zeros(len(lengths), packed.shape[-1])
    if pool == "mean":
        sums = sums.index_add(0, packing.sequence, packed)
        return sums / lengths[:, None].clamp(min=1)
    ends = lengths.cumsum(0)
    has_any = lengths > 0
    chosen = (ends - lengths if pool == "first" else ends - 1)[has_any]
    return sums.index_add(0, has_any.nonzero()[:, 0], packed.index_select(0, chosen))


def visible_places(
    visible: Bool[Tensor, "sequences tokens"],
) -> tuple[Int[Tensor, "sequences kept"], Bool[Tensor, "sequences kept"]]:
    """The places of visible tokens, in order, padded to the most that any sequence has."""
    most = int(visible.sum(1).amax()) if visible.numel() else 0
    places = visible.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return places, visible.gather(1, places)
