"""Copies of a module's buffers, for the step that turns out not to be taken.

Batch statistics, queues and centres move in the forward pass, before anyone knows whether what
moved them was finite.
"""

import torch
from torch import Tensor, nn


class KeptBuffers:
    """Holds every buffer as it was before a step.

    Args:
        module: whose buffers; those that no step changes are copied once.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._copies: dict[str, Tensor] = {}
        self._versions: dict[str, tuple[int, int]] = {}

    @torch.no_grad()
    def keep(self) -> None:
        """Copy what has changed since it was copied last."""
        for name, buffer in self.module.named_buffers():
            version = id(buffer), buffer._version
            if self._versions.get(name) == version:
                continue
            held = self._copies.get(name)
            if held is None or held.shape != buffer.shape:
                self._copies[name] = buffer.clone()
            else:
                held.copy_(buffer)
            self._versions[name] = version

    @torch.no_grad()
    def put_back(self) -> None:
        """Write the copies over what the step made of the buffers."""
        for name, buffer in self.module.named_buffers():
            if self._versions.get(name) != (id(buffer), buffer._version):
                buffer.copy_(self._copies[name])
