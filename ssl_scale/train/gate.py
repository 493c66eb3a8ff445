"""Keeps the optimizer from a step whose gradients are not finite, or that is not wanted.

DeepSpeed looks at the norm itself in some stages and precisions and steps regardless in others;
here all are alike. A step through a shut gate ends as any other, so that the engine forgets its
gradients, but changes neither parameters nor moments.
"""

import math
from typing import Any

from ssl_scale.train.sharded import ShardedState


class Gate:
    """Stands before the torch optimizer under an engine.

    Args:
        sharded: the engine's state.

    Attributes:
        is_shut: whether the next step is not to be taken, whatever its gradients are.
    """

    def __init__(self, sharded: ShardedState) -> None:
        self.is_shut = False
        optimizer = sharded.inner
        step = optimizer.step

        def step_through(*arguments: Any, **options: Any) -> Any:
            if self.is_shut or not math.isfinite(sharded.coming_norm()):
                return None
            return step(*arguments, **options)

        optimizer.step = step_through  # type: ignore[method-assign]
