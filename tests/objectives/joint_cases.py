"""The objectives over two or more crops of a sample, built small."""

from collections.abc import Callable
from typing import Any

from ssl_scale.heads.predictor import MLPPredictor, Predictor
from ssl_scale.heads.projector import LinearProjector, MLPProjector, Projector
from ssl_scale.objectives.barlow_twins import BarlowTwins
from ssl_scale.objectives.moco import MoCo
from ssl_scale.objectives.moco_v3 import MoCoV3
from ssl_scale.objectives.nnclr import NNCLR
from ssl_scale.objectives.objective import Objective
from ssl_scale.objectives.sigmoid_contrast import SigmoidContrast
from ssl_scale.objectives.simsiam import SimSiam
from ssl_scale.objectives.supcon import SupCon
from ssl_scale.objectives.vicreg import VICReg
from ssl_scale.part import Spec
from tests.objectives.steps import WIDTH


def projector(**more: Any) -> Spec[Projector]:
    return Spec.of(MLPProjector, **{"hidden": 7, "out": 6, "norm": "layer", **more})  # type: ignore[arg-type]


def predictor(**more: Any) -> Spec[Predictor]:
    return Spec.of(MLPPredictor, **{"hidden": 7, "norm": "layer", **more})  # type: ignore[arg-type]


JOINT: dict[str, Callable[[], Objective]] = {
    "simsiam": lambda: SimSiam("image", projector(), predictor(), "crops", width=WIDTH),
    "simsiam, batch norm": lambda: SimSiam(
        "image",
        projector(norm="batch", last_norm=True),
        predictor(norm="batch"),
        "crops",
        width=WIDTH,
    ),
    "vicreg": lambda: VICReg("image", projector(last_bias=False), "crops", width=WIDTH),
    # The small projections vary little: with less epsilon rounding would show in the gradients.
    "barlow twins": lambda: BarlowTwins(
        "image", projector(last_bias=False), "crops", epsilon=0.01, width=WIDTH
    ),
    "supcon": lambda: SupCon("image", "label", projector(), "crops", 0.2, width=WIDTH),
    "sigmoid contrast": lambda: SigmoidContrast(
        ("image", "text"),
        Spec.of(LinearProjector, out=6),  # type: ignore[arg-type]
        ("image", "words"),
        bias=-2.0,
        widths={"image": WIDTH, "text": WIDTH},
    ),
    "moco": lambda: MoCo("image", projector(norm="none"), "crops", queue=9, width=WIDTH),
    "moco v3": lambda: MoCoV3("image", projector(), predictor(), "crops", width=WIDTH),
    "moco v3, batch norm": lambda: MoCoV3(
        "image",
        projector(norm="batch", last_norm=True),
        predictor(norm="batch", last_norm=True),
        "crops",
        width=WIDTH,
    ),
    "nnclr": lambda: NNCLR("image", projector(), predictor(), "crops", support=9, width=WIDTH),
}
