"""The plain program: forward and backward for each micro-batch, one optimizer step, teachers."""

from ssl_scale.train.ops import Ops


class Plain:
    """What almost every system needs."""

    def run(self, ops: Ops) -> dict[str, float]:
        """Train one step; returns the teachers' figures."""
        ops.share_counts()
        for micro in range(len(ops.answers)):
            ops.backward(ops.forward(micro))
        return ops.update_teachers() if ops.step() else {}
