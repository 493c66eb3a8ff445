"""Modules whose buffers are statistics of the batches seen, and stay in full precision."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Statistics(nn.Module):
    """Keeps its buffers in at least fp32 whatever the model's precision.

    In bf16 a running mean would stop short of what it follows.
    """

    def keep(self, name: str, value: Tensor) -> None:
        """Register a buffer."""
        # DeepSpeed makes every new tensor half precision: hence the second step.
        is_half = value.dtype in (torch.bfloat16, torch.float16)
        self.register_buffer(name, value.float() if is_half else value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Statistics":
        before = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            moved = self._buffers[name]
            if moved is not None and moved.dtype in (torch.bfloat16, torch.float16):
                self._buffers[name] = buffer.to(moved.device, torch.float32)
        return self
