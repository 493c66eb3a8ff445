"""Parts that had nothing to do in a step, and whose recipe says ``absent: skip``.

A parameter without a gradient gets a zero one, so momentum and weight decay still move it. Under
``skip`` its master, moments and value are put back after the step, shard by shard.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_scale.sharding import local_values, refresh_persistent
from ssl_scale.system.system import System
from ssl_scale.train.sharded import ShardedState


@dataclass(frozen=True)
class Kept:
    """One parameter's state before the step."""

    value: Tensor
    master: Tensor
    moments: Mapping[str, Tensor]


class Absentees:
    """Puts back what a step should not have touched.

    Only an objective's own heads are its alone; encoders and shared heads serve others.

    Args:
        system: the system, for its terms.
        sharded: the engine's trained parameters.
    """

    def __init__(self, system: System, sharded: ShardedState) -> None:
        self.sharded = sharded
        self.owned = {
            name: [key for key in sharded.fragments if key.startswith(f"objectives.{name}.")]
            for name, terms in system.terms.items()
            if terms.absent == "skip"
        }

    @torch.no_grad()
    def keep(self, present: Sequence[str]) -> dict[str, Kept]:
        """Copy the state of every absent objective's heads."""
        kept: dict[str, Kept] = {}
        for objective, names in self.owned.items():
            if objective in present:
                continue
            for name in names:
                fragment = self.sharded.fragments[name]
                moments = self.sharded.moments(fragment)
                kept[name] = Kept(
                    local_values(fragment.parameter).clone(),
                    fragment.master().clone(),
                    {key: moment.clone() for key, moment in moments.items()},
                )
        return kept

    @torch.no_grad()
    def put_back(self, kept: Mapping[str, Kept]) -> None:
        """Write the copies over what the step made of them."""
        for name, before in kept.items():
            fragment = self.sharded.fragments[name]
            local_values(fragment.parameter).copy_(before.value)
            fragment.master().copy_(before.master)
            for key, moment in self.sharded.moments(fragment).items():
                moment.copy_(before.moments[key]) if key in before.moments else moment.zero_()
        refresh_persistent(self.sharded.fragments[name].parameter for name in kept)
