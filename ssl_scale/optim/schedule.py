"""Values that change over training, as pure functions of progress in [0, 1]."""

import math
from abc import ABC, abstractmethod

from ssl_scale.part import Part, Positive, Probability


class Schedule(Part, ABC):
    """A number that depends on the fraction of training done. A bare number is `Constant`."""

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """The value at a fraction of training."""

    @classmethod
    def from_scalar(cls, value: float) -> "Schedule":
        """What a bare number in a recipe means."""
        return Constant(value)


class Constant(Schedule):
    """The same value throughout."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, progress: float) -> float:
        """The value."""
        return self.value


class Linear(Schedule):
    """A straight line from start to end.

    Args:
        start: value at progress 0.
        end: value at `until` and after.
        until: fraction of training at which the end is reached.
    """

    def __init__(self, start: float, end: float, until: Probability = 1.0) -> None:
        self.start, self.end, self.until = start, end, until

    def __call__(self, progress: float) -> float:
        """The value at a fraction of training."""
        done = min(progress / self.until, 1.0) if self.until else 1.0
        return self.start + (self.end - self.start) * done


class Cosine(Schedule):
    """Half a cosine from start to end.

    Args:
        start: value at progress 0.
        end: value at progress 1.
    """

    def __init__(self, start: float, end: float) -> None:
        self.start, self.end = start, end

    def __call__(self, progress: float) -> float:
        """The value at a fraction of training."""
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2


class WarmupCosine(Schedule):
    """Linear warm-up to a peak, then half a cosine.

    Args:
        peak: highest value.
        warmup: fraction of training spent rising from 0.
        end: value at progress 1.
    """

    def __init__(self, peak: float, warmup: Probability = 0.05, end: float = 0.0) -> None:
        self.peak, self.warmup, self.end = peak, warmup, end

    def __call__(self, progress: float) -> float:
        """The value at a fraction of training."""
        if progress < self.warmup:
            return self.peak * progress / self.warmup
        rest = (progress - self.warmup) / max(1 - self.warmup, 1e-12)
        return self.end + (self.peak - self.end) * (1 + math.cos(math.pi * min(rest, 1.0))) / 2


class WarmupStableDecay(Schedule):
    """Linear warm-up, a plateau, linear decay (MiniCPM, arXiv 2404.06395, section 4).

    Args:
        peak: value of the plateau.
        warmup: fraction of training spent rising from 0.
        decay: fraction of training, at its end, spent falling.
        end: value at progress 1.
    """

    def __init__(
        self,
        peak: float,
        warmup: Probability = 0.02,
        decay: Probability = 0.1,
        end: float = 0.0,
    ) -> None:
        if warmup + decay > 1:
            raise ValueError(f"warmup + decay must be at most 1, but is {warmup + decay}")
        self.peak, self.warmup, self.decay, self.end = peak, warmup, decay, end

    def __call__(self, progress: float) -> float:
        """The value at a fraction of training."""
        if progress < self.warmup:
            return self.peak * progress / self.warmup
        left = 1 - progress
        if left < self.decay:
            return self.end + (self.peak - self.end) * max(left, 0.0) / self.decay
        return self.peak


class Infinite(Schedule):
    """Warm-up, cool-down to a rate that can be held for ever, and a last annealing.

    Paper: Beyond Cosine Decay, arXiv 2503.02844 (eta_max is `peak`, eta_const `constant`, eta_min
    `end`): linear from 0, half a cosine, a plateau, and ``constant * (end / constant) ** u`` with u
    from 0 to 1. A run that is to be continued with new data leaves `anneal` at 0; the annealed
    model is a branch from its last checkpoint.

    Args:
        peak: highest value.
        constant: value of the plateau.
        warmup: fraction of training spent rising from 0.
        cooldown: fraction of training spent falling from the peak to the plateau.
        anneal: fraction of training, at its end, spent falling to the end.
        end: value at progress 1, if there is an annealing; above 0, since it falls by factors.

    Raises:
        ValueError: the phases are longer than training.
    """

    def __init__(
        self,
        peak: Positive,
        constant: Positive,
        warmup: Probability = 0.02,
        cooldown: Probability = 0.2,
        anneal: Probability = 0.0,
        end: Positive = 1e-6,
    ) -> None:
        if warmup + cooldown + anneal > 1:
            raise ValueError(
                "warmup + cooldown + anneal must be at most 1, but is "
                f"{warmup + cooldown + anneal:g}"
            )
        self.peak, self.constant, self.end = peak, constant, end
        self.warmup, self.cooldown, self.anneal = warmup, cooldown, anneal

    def __call__(self, progress: float) -> float:
        """The value at a fraction of training."""
        if progress < self.warmup:
            return self.peak * progress / self.warmup
        cooled = progress - self.warmup
        if cooled < self.cooldown:
            half = (1 + math.cos(math.pi * cooled / self.cooldown)) / 2
            return self.constant + (self.peak - self.constant) * half
        annealed = progress - (1 - self.anneal)
        if annealed <= 0 or not self.anneal:
            return self.constant
        falls = self.end / self.constant
        return float(self.constant * falls ** min(annealed / self.anneal, 1.0))
