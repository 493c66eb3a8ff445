"""Small parts of a user's own package, named in recipes as ``tests.recipe.parts:Name``."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from annotated_types import MinLen
from torch import Tensor

from ssl_scale.encoders.encoder import Encoder
from ssl_scale.objectives.objective import Objective
from ssl_scale.optim.schedule import Schedule
from ssl_scale.part import (
    Count,
    EncoderName,
    FieldName,
    Given,
    Part,
    Positive,
    Ratio,
    RoleName,
    Spec,
    TeacherName,
    ViewName,
)
from ssl_scale.types import Attend, Features, Layout, Loss, Mask, Step, View


class TinyEncoder(Encoder):
    def __init__(self, width: Count = 8, kind: Literal["a", "b"] = "a") -> None:
        super().__init__()
        self.width, self.kind = width, kind

    def layout(self, view: View) -> Layout:
        return Layout((1,), view.valid)

    def forward(
        self,
        view: View,
        mask: Mask | None = None,
        attend: Attend = "full",
        keep: Sequence[str] = (),
    ) -> Features:
        tokens = view.values.flatten(2)[:, :, None, : self.width]
        return Features(tokens, view.valid, tokens[:, :, 0], tokens[:, :, :0], view.valid.long())


class Tool(Part, ABC):
    @abstractmethod
    def use(self) -> str: ...


class Hammer(Tool):
    def __init__(self, weight_kg: Positive) -> None:
        self.weight_kg = weight_kg

    def use(self) -> str:
        return "hit"


class Saw(Tool):
    def __init__(self, teeth: Count, coating: Tool | None = None) -> None:
        self.teeth, self.coating = teeth, coating

    def use(self) -> str:
        return "cut"


class Everything(Objective):
    """Takes one argument of each form that an annotation may have."""

    def __init__(
        self,
        encoder: EncoderName,
        view: ViewName | None = None,
        *,
        label: FieldName = "label",
        number: float = 1.0,
        ratio: Ratio = 0.5,
        count: int = 1,
        flag: bool = False,
        text: str = "",
        either: int | tuple[int, ...] = 1,
        perhaps: float | None = 1.0,
        betas: tuple[float, float] = (0.9, 0.95),
        scales: Mapping[str, Positive] | None = None,
        several: Annotated[tuple[EncoderName, ...], MinLen(1)] = ("image",),
        by_encoder: Mapping[EncoderName, int] | None = None,
        schedule: Schedule | None = None,
        tool: Tool | None = None,
        tools: tuple[Tool, ...] = (),
        toolbox: Mapping[str, Spec[Tool]] | None = None,
        tool_or_number: Tool | float = 1.0,
        manual: RoleName | None = None,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.tools, self.toolbox, self.manual, self.width = tools, toolbox, manual, width

    def count(self, step: Step) -> Tensor:
        return step.batch.seeds.new_tensor(len(step.batch))

    def forward(self, step: Step) -> Loss:
        return Loss(step.view("image").values.sum())


class Taught(Everything):
    def __init__(
        self, encoder: EncoderName, teacher: TeacherName | None = None, *, width: Given[int]
    ) -> None:
        super().__init__(encoder, width=width)


class Paired(Everything):
    pairs = True
