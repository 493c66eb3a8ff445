"""Optimizers that scale each layer's update by norms of that layer.

A layer is one parameter, whole. Under ZeRO an optimizer sees flat tensors that hold pieces of many
parameters, and the other ranks hold the other pieces: squared norms are then summed piece by piece
and over the ranks, in one collective a flat tensor.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer as TorchOptimizer

from ssl_scale import dist


@dataclass(frozen=True)
class Run:
    """Elements of a flat tensor that belong to one parameter; on some ranks there are none.

    Args:
        start: the first element.
        numel: how many.
    """

    start: int
    numel: int


class Layerwise(TorchOptimizer):
    """Steps along a direction whose length is set layer by layer.

    Groups tell by ``is_layerwise`` whether theirs is; biases, norms and tables move as without.

    Args:
        groups: of the parameters.
        defaults: settings of groups that have none of their own.
    """

    def __init__(self, groups: list[dict[str, Any]], defaults: dict[str, Any]) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, **defaults})
        self._runs: dict[Tensor, Sequence[Run]] = {}

    def divide(self, runs: Mapping[Tensor, Sequence[Run]]) -> None:
        """Say which elements of each flat tensor belong together.

        Args:
            runs: flat tensor -> a run for each of its parameters, also for those of which other
                ranks hold all; in one order on all ranks. Elements of no run are padding.
        """
        self._runs = dict(runs)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # a closure has no place under DeepSpeed
        """Take one step; a collective where tensors were divided."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                direction = self.direction(parameter, group)
                if group["is_layerwise"]:
                    self._scale(direction, parameter, group)
                self.move(parameter, direction, group)

    @abstractmethod
    def direction(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """Where to go, weight decay included, before it is scaled; a new tensor."""

    @abstractmethod
    def ratio(self, weight: Tensor, update: Tensor, group: dict[str, Any]) -> Tensor:
        """Factors of layers' updates, from norms ``[layers]`` of weights and of updates."""

    @abstractmethod
    def move(self, parameter: Tensor, direction: Tensor, group: dict[str, Any]) -> None:
        """Move the parameter along the scaled direction."""

    def _scale(self, direction: Tensor, parameter: Tensor, group: dict[str, Any]) -> None:
        runs = self._runs.get(parameter, (Run(0, parameter.numel()),))
        flat = [tensor.view(-1) for tensor in (parameter, direction)]
        here = [place for place, run in enumerate(runs) if run.numel]
        pieces = [
            [tensor.narrow(0, runs[place].start, runs[place].numel) for place in here]
            for tensor in flat
        ]
        squares = torch.zeros(2, len(runs), dtype=torch.float64, device=direction.device)
        if here:
            squares[:, here] = torch.stack([_squared_norms(each) for each in pieces])
        if parameter in self._runs:
            squares = dist.reduce(squares.to(dist.device())).to(squares.device)
        weight, update = squares.sqrt()
        # A layer of zeros would never move, and an update of zeros has no length to set.
        known = (weight > 0) & (update > 0)
        factors = torch.where(known, self.ratio(weight, update.clamp(min=1e-300), group), 1)
        if here:
            torch._foreach_mul_(pieces[1], list(factors.to(direction.dtype)[here]))


def _squared_norms(pieces: Sequence[Tensor]) -> Tensor:
    """Of each piece, in float64, so that ranks' shares add up to what one process finds."""
    return torch.stack(torch._foreach_norm(list(pieces), 2)).double().square()
