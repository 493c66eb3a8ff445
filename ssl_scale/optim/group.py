"""Parameters told apart by name that move otherwise than the rest."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from ssl_scale.part import NonNegative


@dataclass(frozen=True)
class Group:
    """Settings of the parameters whose names match a pattern.

    A parameter takes each setting from the first group that matches it and sets it. Names are those
    of ``ssl-scale check --build`` and of checkpoints, such as ``encoders.image.stem.*``.

    Args:
        match: pattern of the whole name; ``*`` stands for any characters, also dots.
        lr_scale: factor of the learning rate.
        weight_decay: in place of the optimizer's, also for biases and norms.
        freeze_until: nothing of them moves before: up to 1 a fraction of training (1 is all of it),
            above a number of optimizer steps.
    """

    match: str
    lr_scale: NonNegative | None = None
    weight_decay: NonNegative | None = None
    freeze_until: NonNegative | None = None

    def __post_init__(self) -> None:
        if (self.lr_scale, self.weight_decay, self.freeze_until) == (None, None, None):
            raise ValueError(
                f"the group {self.match!r} must set lr_scale, weight_decay or freeze_until, "
                "but sets nothing"
            )
        until = self.freeze_until or 0.0
        if until > 1 and not float(until).is_integer():
            raise ValueError(
                "freeze_until must be a fraction of training up to 1 or a whole number of steps, "
                f"but is {until}"
            )

    def holds(self, name: str) -> bool:
        """Whether the pattern matches a parameter's name."""
        return fnmatchcase(name, self.match)
