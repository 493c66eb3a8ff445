"""Parts and specs: what a recipe may name by ``type``, and a part that is checked but not built.

A part's constructor is its only schema. Its annotations say what the recipe reader checks: plain
types, ranges (`Positive`, `Ratio`), references to other entries (`EncoderName`), nested parts
(an annotation that is itself a `Part` arrives built; one annotated ``Spec[Projector]`` arrives as a
spec, to be built as often as needed) and run-time values (`Given`), which recipes cannot set.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

T = TypeVar("T")


class Part:
    """Base of everything that a recipe can name by ``type``."""


@dataclass(frozen=True)
class Reference:
    """Marks a string argument as the name of an entry in a section of the recipe."""

    section: str


@dataclass(frozen=True)
class Key:
    """Marks an argument that recipes write under another name (``from`` is a Python keyword)."""

    name: str


class _Given:
    """Marks a keyword-only argument that the engine fills in; recipes cannot set it."""


GIVEN = _Given()
Given: TypeAlias = Annotated[T, GIVEN]

EncoderName: TypeAlias = Annotated[str, Reference("encoders")]
HeadName: TypeAlias = Annotated[str, Reference("heads")]
ViewName: TypeAlias = Annotated[str, Reference("views")]
MaskName: TypeAlias = Annotated[str, Reference("masks")]
TeacherName: TypeAlias = Annotated[str, Reference("teachers")]
FieldName: TypeAlias = Annotated[str, Reference("data.fields")]
SourceName: TypeAlias = Annotated[str, Reference("data.sources")]
ObjectiveName: TypeAlias = Annotated[str, Reference("objectives")]
# A role (``--data ROLE=PATH`` or ``paths:`` binds it); the part receives the bound path.
RoleName: TypeAlias = Annotated[str, Reference("paths")]

Positive: TypeAlias = Annotated[float, Gt(0)]
NonNegative: TypeAlias = Annotated[float, Ge(0)]
Probability: TypeAlias = Annotated[float, Ge(0), Le(1)]
Ratio: TypeAlias = Annotated[float, Gt(0), Lt(1)]
Count: TypeAlias = Annotated[int, Ge(1)]
Whole: TypeAlias = Annotated[int, Ge(0)]


def is_given(annotation: Any) -> bool:
    """Whether an annotation is ``Given[...]``."""
    return get_origin(annotation) is Annotated and GIVEN in get_args(annotation)[1:]


def annotations_of(part: type) -> dict[str, Any]:
    """The constructor's annotations by argument name, with `Annotated` metadata kept."""
    hints = get_type_hints(part.__init__, include_extras=True)
    hints.pop("return", None)
    return hints


@dataclass(frozen=True)
class Spec(Generic[T]):
    """A part that was checked but not built.

    Args:
        part: the class.
        arguments: checked constructor arguments; nested parts are specs too.
        path: where in the recipe it stands, for messages.
    """

    part: type[T]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""

    @classmethod
    def of(cls, part: type[T], **arguments: Any) -> "Spec[T]":
        """A spec written in Python instead of YAML; arguments are not checked."""
        return cls(part, arguments)

    def build(self, **given: Any) -> T:
        """Construct the part; run-time values go to whoever asks for them by name.

        Raises:
            TypeError: a required run-time value is not given.
        """
        hints = annotations_of(self.part)
        arguments = {
            name: _build_nested(value, hints.get(name), given)
            for name, value in self.arguments.items()
        }
        for name, parameter in inspect.signature(self.part).parameters.items():
            if not is_given(hints.get(name)):
                continue
            if name in given:
                arguments[name] = given[name]
            elif parameter.default is inspect.Parameter.empty:
                raise TypeError(
                    f"{self.path or self.part.__name__}: {self.part.__name__} needs the run-time "
                    f"value {name!r}, but only {sorted(given) or 'nothing'} is given"
                )
        return self.part(**arguments)


def wants_spec(annotation: Any) -> bool:
    """Whether an annotation asks for unbuilt specs (``Spec[X]``, also inside containers)."""
    if get_origin(annotation) is Spec or annotation is Spec:
        return True
    return any(wants_spec(inner) for inner in get_args(annotation) if not isinstance(inner, str))


def _build_nested(value: Any, annotation: Any, given: Mapping[str, Any]) -> Any:
    if wants_spec(annotation):
        return value
    if isinstance(value, Spec):
        return value.build(**given)
    if isinstance(value, tuple | list):
        return type(value)(_build_nested(item, None, given) for item in value)
    if isinstance(value, Mapping):
        return {key: _build_nested(item, None, given) for key, item in value.items()}
    return value
