"""From a name and settings on a command line to an objective in the synthetic world.

Settings are read like those of a recipe, against the constructor. What a recipe would have to say
and the command line leaves out is filled in where there is one natural choice: names of the world's
encoders, views, masks and fields, and small heads.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

import torch

from ssl_scale.errors import RecipeError
from ssl_scale.heads.assignment import Assignment
from ssl_scale.heads.decoder import Decoder
from ssl_scale.heads.jepa_predictor import JEPAPredictor
from ssl_scale.heads.predictor import Predictor
from ssl_scale.heads.projector import Projector
from ssl_scale.heads.prototypes import PrototypeHead
from ssl_scale.objectives.objective import Objective
from ssl_scale.part import Reference, Spec, annotations_of, is_given
from ssl_scale.recipe.annotations import mark, part_class, strip
from ssl_scale.recipe.checking import Checker
from ssl_scale.recipe.entry import Entry
from ssl_scale.recipe.faults import Faults, Place, RecipeFaults, hint
from ssl_scale.recipe.loading import load
from ssl_scale.recipe.overlay import override
from ssl_scale.recipe.rooms import find_part
from ssl_scale.verify.world import CLASSES, DEPTH, PATCH_VALUES, WIDTH, WORDS, World

# What the world holds, the most natural choice first.
NAMES = {
    "encoders": ("image", "text"),
    "views": ("crops", "image", "local", "words"),
    "masks": ("patches", "words", "blocks", "targets"),
    "data.fields": ("label", "tags"),
    "teachers": ("ema",),
    "heads": ("classifier",),
}
_HEADS = {
    Projector: "{type: MLPProjector, hidden: 7, out: 6, norm: layer}",
    Predictor: "{type: MLPPredictor, hidden: 7, norm: layer}",
    Decoder: "{type: MAEDecoder, hidden: 8, depth: 1, num_heads: 2}",
    PrototypeHead: "{type: PrototypeHead, prototypes: 9, hidden: 7, bottleneck: 5, norm: none}",
    Assignment: "{type: Centring}",
    JEPAPredictor: "{type: JEPAPredictor, hidden: 8, depth: 1, num_heads: 2}",
}
_GIVEN = {
    "width": WIDTH,
    "widths": {"image": WIDTH, "text": WIDTH},
    "depth": DEPTH,
    "classes": {"label": CLASSES, "tags": CLASSES},
    "patch_values": PATCH_VALUES,
    "vocab_size": WORDS,
}


@dataclass(frozen=True)
class Choice:
    """An objective, as the command line names it; every process loads it again.

    Args:
        name: a class of ours, or ``package.module:Class``.
        settings: of its constructor, ``key=value``.
    """

    name: str
    settings: tuple[str, ...] = ()

    def spec(self) -> Spec[Objective]:
        """The checked objective.

        Raises:
            RecipeError: it cannot be found, or the settings do not fit.
        """
        faults = Faults()
        root = Entry({"type": Entry(self.name, Place("objective"))}, Place("objective"))
        for text in self.settings:
            root = override(root, text, faults)
        root = _filled(root, _find(self.name))
        checker = Checker(faults, {})
        spec = checker.spec(Objective, root, "", "ssl_scale.objectives")
        for mention in checker.mentions:
            known = NAMES.get(mention.section, ())
            if mention.name not in known:
                what = f"{mention.section} has no {mention.name!r}{hint(mention.name, known)}"
                faults.add(mention.place, mention.path, what)
        try:
            faults.check(self.name)
        except RecipeFaults as error:
            raise RecipeError(f"{error}; see --set") from error
        return spec  # type: ignore[no-any-return]

    def world(self, dtype: torch.dtype = torch.float64) -> World:
        """The objective among its encoders and with its teacher, from fixed seeds.

        Raises:
            RecipeError: the constructor refuses the settings.
        """
        spec = self.spec()
        return make_world(lambda: _built(spec), dtype)


def make_world(build: Callable[[], Objective], dtype: torch.dtype = torch.float64) -> World:
    """What `build` makes among its encoders, in training mode, with another such as teacher."""
    torch.manual_seed(0)
    world = World(build())
    torch.manual_seed(1)
    return world.teach(World(build())).to(dtype)


def _built(spec: Spec[Objective]) -> Objective:
    try:
        return spec.build(**_GIVEN)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{spec.part.__name__} cannot be built: {error}") from error


def _find(name: str) -> type[Objective]:
    try:
        found = find_part(name, Objective, "ssl_scale.objectives")
    except LookupError as error:
        raise RecipeError(f"{name}: {error.args[0]}") from error
    except Exception as error:  # the user's module runs here
        raise RecipeError(f"{name}: its module must be importable, but raises {error!r}") from error
    return found  # type: ignore[return-value]


def _filled(root: Entry, part: type[Objective]) -> Entry:
    """The settings, with natural choices for required arguments that are not among them."""
    items = dict(root.items)
    hints = annotations_of(part)
    for name, parameter in inspect.signature(part).parameters.items():
        annotation = hints.get(name)
        required = parameter.default in (inspect.Parameter.empty, "")
        if name in items or is_given(annotation) or not required:
            continue
        choice = _choice(annotation)
        if choice is not None:
            items[name] = load(choice, "", line=False)
    return Entry(items, root.place)


def _choice(annotation: Any) -> str | None:
    """The natural value of an argument, in YAML; None if there is none."""
    inner, _ = strip(annotation)
    reference = mark(annotation, Reference)
    if reference is not None and reference.section in NAMES:
        return NAMES[reference.section][0]
    if get_origin(inner) is tuple and len(get_args(inner)) == 2:
        pair = [mark(member, Reference) for member in get_args(inner)]
        if pair[0] is not None and pair[0] == pair[1] and pair[0].section in NAMES:
            return f"[{', '.join(NAMES[pair[0].section][:2])}]"
    base = part_class(annotation)
    return next((text for kind, text in _HEADS.items() if base is kind), None)


def with_settings(name: str, settings: Sequence[str]) -> Choice:
    """A choice that can be built.

    Raises:
        RecipeError: it cannot.
    """
    choice = Choice(name, tuple(settings))
    _built(choice.spec())
    return choice
