"""Every objective, built small, and what the engine does with its loss."""

from collections.abc import Callable, Sequence

import torch

from ssl_scale.heads.mae_decoder import MAEDecoder
from ssl_scale.heads.mlp import Norm
from ssl_scale.heads.predictor import MLPPredictor, Predictor
from ssl_scale.heads.projector import LinearProjector, MLPProjector, Projector
from ssl_scale.objectives.binary_cross_entropy import BinaryCrossEntropy
from ssl_scale.objectives.byol import BYOL
from ssl_scale.objectives.cross_entropy import CrossEntropy
from ssl_scale.objectives.infonce import InfoNCE
from ssl_scale.objectives.masked_pixels import MaskedPixels
from ssl_scale.objectives.masked_tokens import MaskedTokens
from ssl_scale.objectives.ntxent import NTXent
from ssl_scale.objectives.objective import Objective
from ssl_scale.objectives.pseudo_label import PseudoLabel
from ssl_scale.part import Spec
from ssl_scale.verify import training
from ssl_scale.verify.loading import make_world
from ssl_scale.verify.training import Outcome
from tests.objectives.distillation_cases import DISTILLATION
from tests.objectives.joint_cases import JOINT
from tests.objectives.steps import CLASSES, PATCH_VALUES, WIDTH, WORDS, Samples, World

CLASSES_OF = {"label": CLASSES, "tags": CLASSES}


def projector(norm: Norm) -> Spec[Projector]:
    return Spec.of(MLPProjector, hidden=7, out=6, norm=norm)  # type: ignore[arg-type]


def byol(norm: Norm) -> BYOL:
    predictor: Spec[Predictor] = Spec.of(MLPPredictor, hidden=7, norm=norm)  # type: ignore[arg-type]
    return BYOL("image", projector(norm), predictor, view="crops", width=WIDTH)


CASES: dict[str, Callable[[], Objective]] = {
    "ntxent": lambda: NTXent("image", projector("none"), "crops", 0.2, width=WIDTH),
    "ntxent, batch norm": lambda: NTXent("image", projector("batch"), "crops", 0.2, width=WIDTH),
    "infonce": lambda: InfoNCE(
        ("image", "text"),
        Spec.of(LinearProjector, out=6),  # type: ignore[arg-type]
        ("image", "words"),
        widths={"image": WIDTH, "text": WIDTH},
    ),
    "byol": lambda: byol("layer"),
    "byol, batch norm": lambda: byol("batch"),
    "masked pixels": lambda: MaskedPixels(
        "image",
        "patches",
        Spec.of(MAEDecoder, hidden=8, depth=1, num_heads=2),  # type: ignore[arg-type]
        width=WIDTH,
        patch_values=PATCH_VALUES,
    ),
    "masked tokens": lambda: MaskedTokens("text", "words", width=WIDTH, vocab_size=WORDS),
    "cross entropy": lambda: CrossEntropy(
        "image", "label", "crops", 0.1, width=WIDTH, classes=CLASSES_OF
    ),
    "binary cross entropy": lambda: BinaryCrossEntropy(
        "image", "tags", "crops", width=WIDTH, classes=CLASSES_OF
    ),
    "cross entropy, shared head": lambda: CrossEntropy(
        "image", "label", "crops", head="classifier", width=WIDTH, classes=CLASSES_OF
    ),
    "pseudo-label": lambda: PseudoLabel("image", "classifier", "crops", threshold=0.23),
    "pseudo-label, teacher": lambda: PseudoLabel(
        "image", "classifier", "crops", "image", teacher="ema", threshold=0.28
    ),
    **DISTILLATION,
    **JOINT,
}

# What an objective counts does not depend on which samples share its micro-batch.
SEPARABLE = [name for name, case in CASES.items() if not case().pairs and "batch" not in name]


def build(name: str, dtype: torch.dtype = torch.float64) -> World:
    """The named case, from fixed seeds, in training mode."""
    return make_world(CASES[name], dtype)


def train_step(name: str, samples: Samples, micro_batches: Sequence[Sequence[int]]) -> Outcome:
    """Loss and gradients of this rank's micro-batches, divided and averaged as the engine does."""
    return training.train_step(build(name), [samples.pick(rows) for rows in micro_batches])
