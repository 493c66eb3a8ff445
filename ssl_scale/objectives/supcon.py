"""SupCon: all crops of one class attract, crops of other classes in the global batch repel."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_scale.heads.projector import Projector
from ssl_scale.objectives.labels import labels_of, mean_over_crops
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import EncoderName, FieldName, Given, Positive, Spec, ViewName
from ssl_scale.types import Loss, Step


class SupCon(Objective):
    """Softmax contrast in which every other crop of a class is a match.

    Paper: Supervised Contrastive Learning, arXiv 2004.11362, equation 2, ``L_out`` (``tau`` is
    `temperature`, ``P(i)`` the other crops of i's class, ``A(i)`` all other crops). Counts samples
    that have a label: the mean of a sample's crops. Samples without a label take no part. A crop
    whose class nobody else shows has no match; it repels, and its own loss is zero.

    Args:
        encoder: whose features are contrasted.
        label: field of class numbers; negative where a sample has none.
        projector: makes the head.
        view: named like the encoder unless told; the paper has two crops.
        temperature: softmax temperature.
        width: feature width of the encoder.
    """

    pairs = True

    def __init__(
        self,
        encoder: EncoderName,
        label: FieldName,
        projector: Spec[Projector],
        view: ViewName | None = None,
        temperature: Positive = 0.1,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.encoder, self.view, self.label = encoder, view or encoder, label
        self.temperature = temperature
        self.projector = projector.build(width=width)

    def count(self, step: Step) -> Tensor:
        """Samples that have a label and a crop."""
        return self._present(step).any(1).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's samples, each among the samples of all ranks."""
        present, labels = self._present(step), labels_of(step, self.label)
        pooled = blank(step.student(self.encoder, self.view).pooled, present)
        local = F.normalize(full_precision(self.projector(pooled, present)), dim=-1)
        losses, hits = supcon(
            (local, labels),
            (step.gather(local), step.gather(labels)),
            step.gather(present),
            step.offset(local),
            self.temperature,
        )
        total, right = (mean_over_crops(each, present).sum() for each in (losses, hits))
        return Loss(total, {"accuracy": (right, present.any(1).sum())})

    def _present(self, step: Step) -> Bool[Tensor, "batch crops"]:
        return step.view(self.view).present & (labels_of(step, self.label) >= 0)[:, None]


def supcon(
    local: tuple[Float[Tensor, "batch crops width"], Int[Tensor, " batch"]],
    everyone: tuple[Float[Tensor, "samples crops width"], Int[Tensor, " samples"]],
    present: Bool[Tensor, "samples crops"],
    offset: int,
    temperature: float,
) -> tuple[Float[Tensor, "batch crops"], Float[Tensor, "batch crops"]]:
    """Each local crop's loss, and whether the crop most like it is of its class.

    Args:
        local: this rank's crops, of unit length, and their samples' classes.
        everyone: the same of all ranks.
        present: which crops take part; the loss of the others means nothing.
        offset: place of the first local sample among everyone's.
        temperature: softmax temperature.
    """
    (crops, classes), (candidates, their_classes) = local, everyone
    each = crops.shape[1]
    rows = torch.arange(crops.shape[:2].numel(), device=crops.device) + each * offset
    columns = torch.arange(present.numel(), device=crops.device)
    others = present.flatten() & (columns != rows[:, None])
    same = classes[:, None] == their_classes
    match = others & same.repeat_interleave(each, 0).repeat_interleave(each, 1)
    # A crop that is alone is compared with anything, so that its loss, which counts for nothing,
    # is finite.
    allowed = others | ~others.any(1, keepdim=True)
    logits = crops.flatten(0, 1) @ candidates.flatten(0, 1).T / temperature
    among = logits.masked_fill(~allowed, -torch.inf)
    mean_match = torch.where(match, logits, 0).sum(1) / match.sum(1).clamp(min=1)
    losses = torch.where(match.any(1), among.logsumexp(1) - mean_match, 0)
    best = among.detach().amax(1, keepdim=True)
    hits = ((among.detach() >= best) & match).any(1).to(losses)
    return losses.view(crops.shape[:2]), hits.view(crops.shape[:2])
