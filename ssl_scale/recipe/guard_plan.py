"""``train.guard``: what a run does about steps that would spoil it."""

from dataclasses import dataclass

from ssl_scale.part import Count, Positive, Whole


@dataclass(frozen=True)
class GuardPlan:
    """When a step is left out, and when a run goes back.

    A step with a loss or a gradient that is not finite is never taken: parameters, moments,
    teachers and buffers stay as they were, and ``skipped.jsonl`` in the run's folder names its
    samples.

    Args:
        skips: steps in a row that may be left out; one more stops the run. (fp16 leaves out some
            while DeepSpeed looks for a scale of the loss.)
        spike: how far a loss may lie above the median of recent steps with the same objectives, in
            robust standard deviations (1.4826 x the median absolute deviation). Beyond it the run
            goes back to its newest checkpoint and passes over the batches since. None takes every
            finite step.
        window: recent steps that a loss is compared with; with less than half as many it passes.
        rollbacks: how often a run may go back from its start or resume on; one more stops it.
    """

    skips: Whole = 20
    spike: Positive | None = None
    window: Count = 100
    rollbacks: Whole = 5
