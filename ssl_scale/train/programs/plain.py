"""The plain program: forward and backward for each micro-batch, one optimizer step, teachers."""

from ssl_scale.train.ops import Ops
from ssl_scale.types import Loss


class Plain:
    """What almost every system needs."""

    def run(self, ops: Ops) -> list[dict[str, Loss]]:
        """Train one step; returns every micro-batch's losses, detached sums by objective."""
        ops.share_counts()
        done: list[dict[str, Loss]] = []
        for micro in range(len(ops.answers)):
            losses = ops.losses(micro)
            ops.backward(ops.value(losses))
            done.extend(losses)
        ops.step()
        return done
