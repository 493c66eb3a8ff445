"""``init_from`` of a recipe: which parts start from what another run has learned."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import MinLen

from ssl_scale.part import Count, RoleName


@dataclass(frozen=True)
class WarmStart:
    """Parts that start from another run's checkpoint, whoever wrote it.

    An encoder that starts from released weights or an export says so itself: see `InitFrom`.

    Args:
        run: the run's folder, or a checkpoint's, by role or path (anything with a slash).
        parts: parts of this recipe: ``encoders.NAME``, ``heads.NAME``, ``objectives.NAME``, or
            something inside of them, such as ``objectives.NAME.projector``.
        step: of the checkpoint; the newest valid one unless told.
        teacher: a teacher of the run, whose copies are taken, not the student's.
        rename: part -> what the run calls it; named alike unless told.
        partial: whether what the run lacks, or has in another shape, may keep its fresh values.
    """

    run: RoleName
    parts: Annotated[tuple[str, ...], MinLen(1)]
    step: Count | None = None
    teacher: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    partial: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(self.rename.keys() - set(self.parts))
        if unknown:
            raise ValueError(
                f"rename must name parts of this entry, {list(self.parts)}, but one is "
                f"{unknown[0]!r}"
            )
