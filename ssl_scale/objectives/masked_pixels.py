"""Masked autoencoding: reconstruct the pixels of hidden patches."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.heads.decoder import Decoder
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import EncoderName, Given, MaskName, Spec, ViewName
from ssl_scale.types import Loss, Step


class MaskedPixels(Objective):
    """Mean squared error of the hidden patches' pixels.

    Paper: Masked Autoencoders Are Scalable Vision Learners, arXiv 2111.06377, section 3. Counts
    hidden patches.

    Args:
        encoder: of images; its grid says what a patch is.
        mask: which patches are hidden.
        decoder: makes the head.
        view: of images; the one that the mask covers unless told.
        normalize: reconstruct each patch less its mean, over its standard deviation.
        width: feature width of the encoder.
        patch_values: numbers in a patch of the view.
    """

    def __init__(
        self,
        encoder: EncoderName,
        mask: MaskName,
        decoder: Spec[Decoder],
        view: ViewName | None = None,
        normalize: bool = True,
        *,
        width: Given[int],
        patch_values: Given[int],
    ) -> None:
        super().__init__()
        self.encoder, self.mask, self.view = encoder, mask, view
        self.normalize = normalize
        self.decoder = decoder.build(width=width, out=patch_values)

    def count(self, step: Step) -> Tensor:
        """Hidden patches."""
        return self._hidden(step).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's hidden patches."""
        hidden = self._hidden(step)
        # Before the difference: the gradient of a square is the difference, and absent pixels may
        # hold anything.
        errors = masked_pixels(self.predict(step), blank(self.target(step), hidden))
        return Loss(torch.where(hidden, errors, 0).sum())

    def predict(self, step: Step) -> Float[Tensor, "batch crops places values"]:
        """What the decoder says of every patch."""
        view = self._view(step)
        layout = step.layout(self.encoder, view)
        seen = step.student(self.encoder, view, mask=self.mask)
        there = layout.valid.any(-1, keepdim=True)
        decoded: Tensor = self.decoder(
            blank(seen.tokens, seen.valid),
            seen.origin,
            seen.valid,
            blank(seen.prefix, there.expand(seen.prefix.shape[:-1])),
            layout.valid,
            layout.grid,
        )
        return decoded

    def target(self, step: Step) -> Float[Tensor, "batch crops places values"]:
        """What the decoder should say."""
        view = self._view(step)
        height, width = step.layout(self.encoder, view).grid
        patches = cut_patches(full_precision(step.view(view).values), height, width)
        return normalize_patches(patches) if self.normalize else patches

    def _view(self, step: Step) -> str:
        return self.view or next(iter(step.mask(self.mask)))

    def _hidden(self, step: Step) -> Bool[Tensor, "batch crops places"]:
        view = self._view(step)
        return step.mask(self.mask)[view].hidden & step.layout(self.encoder, view).valid


def cut_patches(
    pixels: Float[Tensor, "batch crops channels height width"], rows: int, columns: int
) -> Float[Tensor, "batch crops places values"]:
    """Cut pictures into a grid of patches, each flattened as (channel, row, column)."""
    *leading, channels, height, width = pixels.shape
    sides = height // rows, width // columns
    patches = pixels.reshape(*leading, channels, rows, sides[0], columns, sides[1])
    return patches.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)


def normalize_patches(
    patches: Float[Tensor, "*places values"],
) -> Float[Tensor, "*places values"]:
    """Each patch less its mean, over its (unbiased) standard deviation, as in the authors' code."""
    variance, mean = torch.var_mean(patches, -1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def masked_pixels(
    predicted: Float[Tensor, "*places values"], target: Float[Tensor, "*places values"]
) -> Float[Tensor, "*places"]:
    """Mean squared error of each patch."""
    return (full_precision(predicted) - target).square().mean(-1)
