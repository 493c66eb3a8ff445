"""A teacher that was trained before, and stays as it is."""

from typing import Annotated, Literal, TypeAlias

from annotated_types import MinLen
from torch import nn

from ssl_scale.part import Key, RoleName
from ssl_scale.sharding import Shards
from ssl_scale.teachers.teacher import Teacher

FrozenPool: TypeAlias = Literal["mean", "first", "last", "model"]


class FrozenTeacher(Teacher):
    """Encoders from a folder, whatever the student's look like; never updated.

    What is asked of it by an encoder's name (``step.teacher("image", by=...)``) is its part of that
    name. Checkpoints hold its weights, so that a run resumes and is evaluated without them; its
    folder still tells what it is made of.

    Args:
        source: role or path of the folder, which recipes call ``from``: what ``ssl-scale export``
            wrote, or a model that `transformers` saved.
        parts: names of the encoders that are taken; a model of `transformers` gets the one name.
        pool: what the one vector of a model of `transformers` is; see `HFEncoder`.
    """

    def __init__(
        self,
        source: Annotated[RoleName, Key("from")],
        parts: Annotated[tuple[str, ...], MinLen(1)],
        pool: FrozenPool = "mean",
    ) -> None:
        super().__init__()
        self.source, self.parts, self.pool = source, parts, pool

    def copy_student(self, system: nn.Module) -> None:
        """It has nothing of the student."""

    def start(self, system: nn.Module, shards: Shards) -> None:
        """It has its values already."""

    def update(self, system: nn.Module, shards: Shards, progress: float) -> dict[str, float]:
        """It stays."""
        return {}
