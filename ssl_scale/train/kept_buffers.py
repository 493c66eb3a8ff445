"""Copies of a module's buffers, for the step that turns out not to be taken.

Batch statistics, queues and centres move in the forward pass, before anyone knows whether what
moved them was finite.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class KeptBuffers:
    """Holds every buffer as it was before a step.

    Args:
        module: whose buffers; those that no step changes are copied once.
    """

    def __init__(self, module: nn.Module) -> None:
        # Found once: walking all modules in every step costs more than the copies of most.
        self._places = [
            (f"{path}.{name}", part._buffers, name)
            for path, part in module.named_modules()
            for name, buffer in part._buffers.items()
            if buffer is not None
        ]
        self._copies: dict[str, Tensor] = {}
        self._versions: dict[str, tuple[int, int]] = {}

    @torch.no_grad()
    def keep(self) -> None:
        """Copy what has changed since it was copied last."""
        for key, buffer in self._buffers():
            version = id(buffer), buffer._version
            if self._versions.get(key) == version:
                continue
            held = self._copies.get(key)
            if held is None or held.shape != buffer.shape:
                self._copies[key] = buffer.clone()
            else:
                held.copy_(buffer)
            self._versions[key] = version

    @torch.no_grad()
    def put_back(self) -> None:
        """Write the copies over what the step made of the buffers."""
        for key, buffer in self._buffers():
            if self._versions.get(key) != (id(buffer), buffer._version):
                buffer.copy_(self._copies[key])

    def _buffers(self) -> Iterator[tuple[str, Tensor]]:
        for key, buffers, name in self._places:
            buffer = buffers[name]
            assert buffer is not None, "a buffer stays one"
            yield key, buffer
