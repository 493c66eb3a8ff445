"""What the loader hands to the training loop for one optimizer step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch

from ssl_scale.errors import SslScaleError
from ssl_scale.types import Batch


@dataclass
class Cost:
    """What making a step took.

    Args:
        read_ms: time spent reading.
        decode_ms: time spent decoding.
        collate_ms: time spent putting batches together.
        read_bytes: what was read.
        substituted: how many bad samples were replaced.
    """

    read_ms: float = 0.0
    decode_ms: float = 0.0
    collate_ms: float = 0.0
    read_bytes: int = 0
    substituted: int = 0


@dataclass(frozen=True, eq=False)
class StepBatches:
    """This rank's part of one optimizer step: a sequence of micro-batches.

    Args:
        step: its number.
        batches: micro-batches, each one batch for each source that feeds the step.
        cost: what making it took.
        failure: why this rank could not make it; its batches are padding then.
        drawn: source -> samples that the step takes from it, over all ranks and micro-batches.
        tokens: of the samples that are put together by length, over all ranks.
        places: that the ranks together make, or wait, for these tokens.
    """

    step: int
    batches: tuple[tuple[Batch, ...], ...]
    cost: Cost = field(default_factory=Cost)
    failure: SslScaleError | None = None
    drawn: Mapping[str, int] = field(default_factory=dict)
    tokens: int = 0
    places: int = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Batch, ...]]:
        return iter(self.batches)

    def __getitem__(self, micro: int) -> tuple[Batch, ...]:
        return self.batches[micro]

    def to(self, device: torch.device) -> "StepBatches":
        """The same batches on another device."""
        moved = tuple(tuple(batch.to(device) for batch in micro) for micro in self.batches)
        return replace(self, batches=moved)

    def pin_memory(self) -> "StepBatches":
        """The same batches in page-locked memory, so that copies to a GPU overlap."""
        pinned = tuple(tuple(batch.pin_memory() for batch in micro) for micro in self.batches)
        return replace(self, batches=pinned)
