"""The ``train`` section: how long, in which precision, and what is kept."""

from dataclasses import dataclass, field
from typing import Literal

from ssl_scale.part import Count, Positive, Whole
from ssl_scale.recipe.guard_plan import GuardPlan
from ssl_scale.recipe.zero_options import ZeroOptions


@dataclass(frozen=True)
class TrainPlan:
    """How a run trains.

    Exactly one of `steps` and `epochs` is written; `num_steps` in recipe.py makes steps of either.

    Args:
        steps: optimizer steps.
        epochs: passes over the samples of all sources together, rounded up to whole steps.
        precision: of forward and backward; optimizer states are fp32 throughout.
        zero: DeepSpeed ZeRO stage: what the ranks share out among them. 0 nothing, 1 optimizer
            states, 2 gradients too, 3 parameters too.
        zero_options: where shares lie and how they travel.
        accumulate: micro-batches that a rank's share of a step is cut into.
        seed: of everything that is drawn: order, mixture, views, masks, initial weights.
        save_every: steps between checkpoints; one more is made at the end.
        keep_last: newest checkpoints that are kept.
        keep_every: checkpoints at multiples of this step count are kept for good; 0 for
            none.
        best: metric by which one more checkpoint is kept, such as ``held_out/loss/clip``; written
            with a leading minus (``-held_out/accuracy/classify``) where higher is better.
        validate_every: steps between passes over the validation sources; 0 leaves them to the
            end.
        log_every: steps between lines of metrics.
        wandb: whether metrics also go to Weights & Biases.
        stuck_after_s: seconds without a step after which the run is ended on every rank, with the
            stacks of all of them; the newest checkpoint stays.
        guard: what happens to steps that would spoil the run.
    """

    steps: Count | None = None
    epochs: Positive | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    zero: Literal[0, 1, 2, 3] = 2
    zero_options: ZeroOptions = field(default_factory=ZeroOptions)
    accumulate: Count = 1
    seed: Whole = 0
    save_every: Count = 1000
    keep_last: Count = 2
    keep_every: Whole = 0
    best: str | None = None
    validate_every: Whole = 0
    log_every: Count = 10
    wandb: bool = False
    stuck_after_s: Positive = 1500.0
    guard: GuardPlan = field(default_factory=GuardPlan)
