"""One rank's step as it is in a world of many, without the others: what they send has a shape."""

from collections.abc import Iterator

from torch import Tensor

from ssl_scale.system.step import Answers, LiveStep


class WorldAnswers(Answers):
    """Answers of a rank that meets copies of itself.

    Attributes:
        world_size: how many ranks there would be.
    """

    world_size = 1

    def named(self, scope: str) -> "WorldStep":
        """The step as the named objective sees it."""
        return WorldStep(self, scope, self.world_size)


class WorldStep(LiveStep):
    """A step whose collectives return as many rows as those of `world_size` ranks.

    Args:
        answers: of the rank.
        scope: the objective that looks.
        world_size: how many ranks there would be.
    """

    def __init__(self, answers: Answers, scope: str, world_size: int) -> None:
        super().__init__(answers, scope)
        self.world_size = world_size

    def gather(self, local: Tensor) -> Tensor:
        """This rank's rows, as often as there are ranks."""
        return local.repeat(self.world_size, *[1] * (local.ndim - 1))

    def reduce(self, local: Tensor) -> Tensor:
        """A sum has its terms' shape."""
        return local

    def ring(self, local: Tensor) -> Iterator[Tensor]:
        """This rank's rows, then those of all others at once: the products are the same."""
        yield local
        if self.world_size > 1:
            yield local.repeat(self.world_size - 1, *[1] * (local.ndim - 1))

    def offset(self, local: Tensor) -> int:
        """None: it is the first rank."""
        return 0
