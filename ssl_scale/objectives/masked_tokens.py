"""Masked language modelling: name the hidden tokens."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_scale.heads.token_head import TokenHead
from ssl_scale.objectives.objective import Objective, full_precision
from ssl_scale.part import EncoderName, Given, MaskName, ViewName
from ssl_scale.types import Loss, Step


class MaskedTokens(Objective):
    """Cross-entropy of the hidden tokens of a sequence, given the others.

    Paper: BERT, arXiv 1810.04805, section 3.1, task 1. Counts masked tokens.

    Args:
        encoder: of token ids.
        mask: which tokens are hidden; of mode ``replace``.
        view: of token ids; the one that the mask covers unless told.
        width: feature width of the encoder.
        vocab_size: number of different tokens.
    """

    takes_packed = True

    def __init__(
        self,
        encoder: EncoderName,
        mask: MaskName,
        view: ViewName | None = None,
        *,
        width: Given[int],
        vocab_size: Given[int],
    ) -> None:
        super().__init__()
        self.encoder, self.mask, self.view = encoder, mask, view
        self.head = TokenHead(width=width, vocab_size=vocab_size)

    def count(self, step: Step) -> Tensor:
        """Hidden tokens."""
        return self._hidden(step).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's hidden tokens."""
        view = self._view(step)
        features = step.student(self.encoder, view, mask=self.mask)
        hidden = self._hidden(step)
        # The head is wide: only hidden tokens pass through it. It runs for none of them too.
        logits = full_precision(self.head(features.tokens[hidden]))
        truth = step.view(view).values[hidden]
        hits = (logits.argmax(-1) == truth).sum()
        return Loss(masked_tokens(logits, truth), {"accuracy": (hits, hidden.sum())})

    def _view(self, step: Step) -> str:
        return self.view or next(iter(step.mask(self.mask)))

    def _hidden(self, step: Step) -> Bool[Tensor, "batch crops tokens"]:
        view = self._view(step)
        return step.mask(self.mask)[view].hidden & step.view(view).valid


def masked_tokens(
    logits: Float[Tensor, "hidden words"], truth: Int[Tensor, " hidden"]
) -> Float[Tensor, ""]:
    """The negative log-likelihood of the true tokens, summed; zero for none."""
    return F.cross_entropy(logits, truth, reduction="sum")
