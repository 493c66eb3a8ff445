"""Host memory for what a checkpoint holds, kept from one save to the next.

Fresh memory costs more than the copy itself: the kernel hands it out page by page, zeroed.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ssl_scale.train.checkpoint.contents import Piece


class HostCopies:
    """Copies pieces out of the way of training."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def take(self, pieces: Mapping[str, Piece]) -> dict[str, Piece]:
        """The same pieces in host memory; they last until the next call."""
        self._held = {key: self._room(key, piece.values) for key, piece in pieces.items()}
        devices = {piece.values.device for piece in pieces.values() if piece.values.is_cuda}
        streams = {
            device: torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            for device in devices
        }
        for device, stream in streams.items():
            stream.wait_stream(torch.cuda.default_stream(device))
        for key, piece in pieces.items():
            # A stream of its own, so that the next forward pass does not wait for the copies.
            with torch.cuda.stream(streams.get(piece.values.device)):
                self._held[key].copy_(piece.values, non_blocking=True)
        for stream in streams.values():
            stream.synchronize()
        return {key: replace(piece, values=self._held[key]) for key, piece in pieces.items()}

    def _room(self, key: str, values: Tensor) -> Tensor:
        held = self._held.get(key)
        if held is not None and held.shape == values.shape and held.dtype == values.dtype:
            return held
        return torch.empty(values.shape, dtype=values.dtype, pin_memory=values.is_cuda)
