"""The objectives that distil a teacher or themselves, built small."""

from collections.abc import Callable

from ssl_scale.heads.assignment import Assignment, Centring, SinkhornKnopp
from ssl_scale.heads.jepa_predictor import JEPAPredictor
from ssl_scale.heads.mlp import Norm
from ssl_scale.heads.predictor import MLPPredictor, Predictor
from ssl_scale.heads.prototypes import PrototypeHead
from ssl_scale.objectives.data2vec import Data2Vec
from ssl_scale.objectives.dino import DINO
from ssl_scale.objectives.ibot import IBOT
from ssl_scale.objectives.ijepa import IJEPA
from ssl_scale.objectives.koleo import KoLeo
from ssl_scale.objectives.latent import TargetNorm
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


def data2vec(norm: TargetNorm, beta: float | None = 2.0, depth: int = 2) -> Data2Vec:
    predictor: Spec[Predictor] = Spec.of(MLPPredictor, hidden=7, norm="none")  # type: ignore[arg-type]
    return Data2Vec("image", "blocks", predictor, 2, norm, beta, width=WIDTH, depth=depth)


def ijepa(norm: TargetNorm, beta: float | None = 1.0) -> IJEPA:
    predictor = Spec.of(JEPAPredictor, hidden=8, depth=1, num_heads=2)
    return IJEPA("image", "targets", predictor, norm, beta, width=WIDTH)


DISTILLATION: dict[str, Callable[[], Objective]] = {
    "dino": lambda: dino(Centring),
    "dino, masked, sinkhorn": lambda: dino(SinkhornKnopp, mask="blocks"),
    "ibot": lambda: ibot(Centring),
    "ibot, sinkhorn": lambda: ibot(SinkhornKnopp),
    "koleo": lambda: KoLeo("image", "crops"),
    "swav": lambda: SwAV("image", prototypes(), "crops", "local", width=WIDTH),
    "swav, two crops, batch norm": lambda: SwAV("image", prototypes("batch"), "crops", width=WIDTH),
    "swav, queue": lambda: SwAV("image", prototypes(), "crops", "local", queue=24, width=WIDTH),
    "data2vec": lambda: data2vec("layer"),
    "data2vec, over the batch": lambda: data2vec("batch", None),
    "ijepa": lambda: ijepa("layer"),
    "ijepa, over the batch": lambda: ijepa("batch", None),
}
