"""A queue of the rows that former batches brought, for losses that look beyond their batch.

It is the same on every rank, since what is pushed was gathered, and part of checkpoints, since it
lies in buffers.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_scale.heads.statistics import Statistics
from ssl_scale.part import Count


class Queue(Statistics):
    """The last `size` rows pushed in training; the newest push the oldest out.

    Paper: Momentum Contrast for Unsupervised Visual Representation Learning, arXiv 1911.05722,
    section 3.1.

    All batches of one optimizer step (micro-batches, or several sources) read the queue as it was
    when the step began, so that the step does not depend on how it was cut. Rows of one batch enter
    in an order that is their samples' own, so that which of them leave first does not depend on how
    many ranks there are. It starts with random rows of unit length, as in the authors' code.

    Differs: it takes batches of any size, where the authors' code wants one that divides `size`.

    Args:
        size: number of rows.
        width: features of a row.
    """

    rows: Tensor
    next: Tensor

    def __init__(self, size: Count, width: Count) -> None:
        super().__init__()
        # A generator of its own: the same rows on every rank.
        start = torch.randn(size, width, generator=torch.Generator().manual_seed(0))
        self.keep("rows", F.normalize(start, dim=1))
        self.keep("next", torch.zeros((), dtype=torch.int64))
        self._began: tuple[int, Tensor] | None = None

    def forward(self, step: int) -> Float[Tensor, "size width"]:
        """The rows as they were when an optimizer step began, in no order that means anything."""
        if not self.training:
            return self.rows
        if self._began is None or self._began[0] != step:
            self._began = step, self.rows.clone()
        return self._began[1]

    @torch.no_grad()
    def push(
        self,
        rows: Float[Tensor, "samples width"],
        present: Bool[Tensor, " samples"],
        seeds: Int[Tensor, " samples"],
    ) -> None:
        """Take rows in, if in training.

        Args:
            rows: gathered from all ranks, after the step has read the queue.
            present: which of them to take.
            seeds: `Batch.seeds` of their samples.
        """
        if not self.training:
            return
        size = len(self.rows)
        newest = rows[present][seeds[present].argsort()][-size:]
        places = (self.next + torch.arange(len(newest), device=rows.device)) % size
        self.rows.index_copy_(0, places, newest.to(self.rows.dtype))
        self.next.copy_((self.next + len(newest)) % size)
