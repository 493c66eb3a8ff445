"""The objectives that distil a teacher or themselves, built small."""

from collections.abc import Callable

from ssl_scale.heads.assignment import Assignment, Centring, SinkhornKnopp
from ssl_scale.heads.mlp import Norm
from ssl_scale.heads.prototypes import PrototypeHead
from ssl_scale.objectives.dino import DINO
from ssl_scale.objectives.ibot import IBOT
from ssl_scale.objectives.koleo import KoLeo
from ssl_scale.objectives.objective import Objective
from ssl_scale.objectives.swav import SwAV
from ssl_scale.optim.schedule import Constant, Linear
from ssl_scale.part import Spec
from tests.objectives.steps import WIDTH


def prototypes(norm: Norm = "none") -> Spec[PrototypeHead]:
    return Spec.of(PrototypeHead, prototypes=9, hidden=7, bottleneck=5, norm=norm)


def dino(targets: type[Assignment], mask: str | None = None) -> DINO:
    temperature = Linear(0.04, 0.07)
    head, assign = prototypes(), Spec.of(targets)
    return DINO("image", head, assign, temperature, "crops", "local", mask, width=WIDTH)


def ibot(targets: type[Assignment]) -> IBOT:
    head, assign = prototypes(), Spec.of(targets)
    return IBOT("image", "blocks", head, assign, Constant(0.05), width=WIDTH)


DISTILLATION: dict[str, Callable[[], Objective]] = {
    "dino": lambda: dino(Centring),
    "dino, masked, sinkhorn": lambda: dino(SinkhornKnopp, mask="blocks"),
    "ibot": lambda: ibot(Centring),
    "ibot, sinkhorn": lambda: ibot(SinkhornKnopp),
    "koleo": lambda: KoLeo("image", "crops"),
    "swav": lambda: SwAV("image", prototypes(), "crops", "local", width=WIDTH),
    "swav, two crops, batch norm": lambda: SwAV("image", prototypes("batch"), "crops", width=WIDTH),
}
