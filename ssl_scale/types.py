"""The nouns of one training step, and the legend of axis words used in shape annotations.

Axis words: ``batch`` samples on this rank; ``crops`` views of one sample (crops, clips and sentence
pairs are one axis); ``tokens`` places of an encoder's grid or sequence; ``width`` features of a
token; ``samples`` rows of the global batch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from ssl_scale.rng import Draw

# What recipes call a precision -> what torch does.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Attend: TypeAlias = Literal["full", "causal", "diagonal"]


@dataclass(frozen=True, eq=False)
class Ragged:
    """Values of different lengths, padded: what a batch holds for one text or sequence field.

    Values may differ in several axes: height and width of a picture, channels and steps of a
    recording.

    Args:
        values: ``[batch, length, ...]``; of several ragged axes ``[batch, *lengths, ...]``.
        lengths: ``[batch]`` true lengths, of several ragged axes ``[batch, axes]``; 0 where a
            sample lacks the field.
    """

    values: Tensor
    lengths: Tensor

    @property
    def valid(self) -> Tensor:
        """``[batch, length]`` or ``[batch, *lengths]``: true inside each sample's lengths."""
        each = self.lengths[:, None] if self.lengths.ndim == 1 else self.lengths
        valid = torch.ones(len(each), *[1] * each.shape[1], dtype=torch.bool, device=each.device)
        for axis, lengths in enumerate(each.T, start=1):
            places = torch.arange(self.values.shape[axis], device=each.device)
            others = [1] * (each.shape[1] - axis)
            inside = (places < lengths[:, None]).view(len(each), *[1] * (axis - 1), -1, *others)
            valid = valid & inside
        return valid

    def to(self, device: torch.device) -> "Ragged":
        """The same values on another device."""
        return Ragged(
            self.values.to(device, non_blocking=True), self.lengths.to(device, non_blocking=True)
        )

    def pin_memory(self) -> "Ragged":
        """The same values in page-locked memory."""
        return Ragged(self.values.pin_memory(), self.lengths.pin_memory())


@dataclass(frozen=True, eq=False)
class Packed:
    """Values of different lengths, laid end to end: a batch's text or sequence field as one row.

    Args:
        values: ``[places, ...]``; at least one place, and padding beyond the sum of the lengths.
        lengths: ``[batch]``; 0 where a sample lacks the field.
    """

    values: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, ragged: Ragged) -> "Packed":
        """Without the padding; one place of it stays where there is nothing else.

        Raises:
            ValueError: more than one length differs, and a row cannot hold it.
        """
        if ragged.lengths.ndim > 1:
            raise ValueError(
                f"a packed field must differ in one length, but has {ragged.lengths.shape[1]} of "
                "them; take `pack` off its source"
            )
        values = ragged.values[ragged.valid]
        return cls(values if len(values) else ragged.values[0, :1], ragged.lengths)

    def to(self, device: torch.device) -> "Packed":
        """The same values on another device."""
        return Packed(
            self.values.to(device, non_blocking=True), self.lengths.to(device, non_blocking=True)
        )

    def pin_memory(self) -> "Packed":
        """The same values in page-locked memory."""
        return Packed(self.values.pin_memory(), self.lengths.pin_memory())


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one source, decoded and collated, as the step receives them.

    Args:
        source: name of the source that every sample comes from.
        fields: field name -> tensor ``[batch, ...]``, `Ragged` or `Packed`.
        seeds: ``[batch]`` int64; a pure function of (run seed, epoch, sample): all randomness of a
            sample derives from it.
        keys: the samples' names, for messages and quarantine.
    """

    source: str
    fields: Mapping[str, Tensor | Ragged | Packed]
    seeds: Tensor
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        moved = {
            name: value.to(device, non_blocking=True)
            if isinstance(value, Tensor)
            else value.to(device)
            for name, value in self.fields.items()
        }
        return Batch(self.source, moved, self.seeds.to(device, non_blocking=True), self.keys)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, so that copies to a GPU overlap."""
        pinned = {name: value.pin_memory() for name, value in self.fields.items()}
        return Batch(self.source, pinned, self.seeds.pin_memory(), self.keys)


@dataclass(frozen=True, eq=False)
class View:
    """What one encoder is given.

    Args:
        values: ``[batch, crops, ...]``: pixels ``[.., channels, height, width]`` in about [-1, 1],
            token ids ``[.., tokens]``.
        valid: ``[batch, crops, length]`` bool; length is 1 for whole pictures and the number of
            tokens for sequences. False everywhere for a sample that lacks the modality: it passes
            through the same modules and adds exactly nothing.
        seeds: ``[batch]`` int64, from the batch; drop path and masks derive from it.
        side: side data by name (boxes, times, geometry), ``[batch, crops, ...]``.
        lengths: of a packed view, ``[batch]``: samples laid end to end in one row, so that `values`
            and `valid` are ``[1, 1, places]``. A token never sees another sample's.
    """

    values: Tensor
    valid: Tensor
    seeds: Tensor
    side: Mapping[str, Tensor] = field(default_factory=dict)
    lengths: Tensor | None = None

    @property
    def present(self) -> Tensor:
        """``[batch, crops]``: whether the sample has this view at all."""
        if self.lengths is not None:
            return self.lengths[:, None] > 0
        return self.valid.any(-1)

    def documents(self) -> tuple[Tensor, Tensor]:
        """For each place of a packed view: the sample that it belongs to, and the place inside it.

        Both ``[places]``; a place of padding is put behind the last sample.
        """
        assert self.lengths is not None, "only a packed view has documents"
        ends = self.lengths.cumsum(0)
        places = torch.arange(self.valid.shape[-1], device=self.valid.device)
        document = torch.searchsorted(ends, places, right=True).clamp(max=len(ends) - 1)
        return document, places - (ends - self.lengths)[document]

    def but(self, **changes: Any) -> "View":
        """A copy with some fields replaced."""
        return replace(self, **changes)


@dataclass(frozen=True, eq=False)
class Layout:
    """How an encoder cuts a view into tokens; what a mask sampler must know.

    Args:
        grid: tokens along each axis: ``(height, width)`` for pictures, ``(length,)`` for text.
        valid: ``[batch, crops, tokens]`` bool, where tokens is the product of the grid.
    """

    grid: tuple[int, ...]
    valid: Tensor


@dataclass(frozen=True, eq=False)
class Mask:
    """Which tokens of a view are hidden from an encoder.

    Args:
        hidden: ``[batch, crops, tokens]`` bool.
        mode: ``drop`` removes hidden tokens (MAE, JEPA; equally many in each crop), ``replace``
            puts something else in their place (BERT, BEiT), ``input`` zeroes them before the stem.
        fill: ``[batch, crops, tokens]`` int8, for ``replace``: 0 the mask vector, 1 another random
            token, 2 the token itself; None means 0 everywhere.
        targets: ``[batch, crops, sets, tokens]`` bool: what is to be predicted; None means
            ``hidden`` as one set.
    """

    hidden: Tensor
    mode: Literal["drop", "replace", "input"]
    fill: Tensor | None = None
    targets: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Features:
    """What objectives and probes read from an encoder.

    Args:
        tokens: ``[batch, crops, tokens, width]``, padded; without prefix tokens. Under a mask of
            mode ``drop`` only the visible tokens, in their order.
        valid: ``[batch, crops, tokens]`` bool, for `tokens`.
        pooled: ``[batch, crops, width]``.
        prefix: ``[batch, crops, prefix, width]``: [CLS] and register tokens, may be empty.
        origin: ``[batch, crops, tokens]`` int64: place in the full grid of each of `tokens`.
        kept: intermediates that objectives declared in `reads`, by name.
    """

    tokens: Tensor
    valid: Tensor
    pooled: Tensor
    prefix: Tensor
    origin: Tensor
    kept: Mapping[str, Tensor] = field(default_factory=dict)

    def detach(self) -> "Features":
        """The same features, cut from the graph."""
        values: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            values[entry.name] = (
                value.detach()
                if isinstance(value, Tensor)
                else {name: kept.detach() for name, kept in value.items()}
            )
        return Features(**values)


@dataclass(frozen=True, eq=False)
class Loss:
    """What an objective returns.

    Args:
        total: scalar; the *sum* of the loss over this rank's items. The engine divides by the
            number of items (`Objective.count`) of all ranks and micro-batches, so unequal counts
            weigh as they should. Zero, with a graph, where there are no items.
        metrics: name -> (sum, count) of further figures to log, reduced over ranks like the loss.
    """

    total: Tensor
    metrics: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@runtime_checkable
class Step(Protocol):
    """One micro-batch of a training step, as an objective sees it.

    Equal questions are answered once: two objectives that ask for the same encoder, view, mask,
    attend and draw share one forward pass (dropout and masks included). Never change an answer in
    place.

    Attributes:
        batch: the samples.
        progress: fraction of training done, in [0, 1].
        index: our optimizer-step counter.
    """

    batch: Batch
    progress: float
    index: int

    def view(self, name: str) -> View:
        """A named view of the batch, made on the device, once."""

    def student(
        self,
        part: str,
        view: str | View | None = None,
        *,
        mask: str | Mask | None = None,
        attend: Attend | None = None,
        draw: int = 0,
        grad: bool = True,
    ) -> Features:
        """The named encoder's features; the view is named like the encoder unless told."""

    def teacher(
        self,
        part: str,
        view: str | View | None = None,
        *,
        by: str | None = None,
        mask: str | Mask | None = None,
        attend: Attend | None = None,
    ) -> Features:
        """The same, from a teacher: evaluation mode, no gradient. One teacher needs no name."""

    def apply(self, head: str, *tensors: Tensor, by: str | None = None) -> Any:
        """Run a shared head (section ``heads:``), once for the same tensors.

        With `by` it is a teacher's copy, also of one of the asking objective's own heads
        (`Objective.taught`).
        """

    def mask(self, name: str) -> Mapping[str, Mask]:
        """View name -> the named mask, drawn once a step."""

    def layout(self, part: str, view: str | View | None = None) -> Layout:
        """How the named encoder cuts a view into tokens."""

    def draw(self, name: str) -> Draw:
        """Per-sample randomness, pure in (seed, epoch, sample, objective, name)."""

    def draw_step(self, name: str) -> torch.Generator:
        """A CPU generator that is equal on all ranks, fresh each step."""

    def gather(self, local: Tensor) -> Tensor:
        """Rows of all ranks in rank order, with gradient; ranks may bring unequal numbers."""

    def reduce(self, local: Tensor) -> Tensor:
        """Sum over ranks, with gradient."""

    def ring(self, local: Tensor) -> Iterator[Tensor]:
        """Every rank's rows in turn, with gradient, beginning with this rank's; also unequal."""

    def offset(self, local: Tensor) -> int:
        """How many rows lower ranks bring to ``gather(local)``."""
