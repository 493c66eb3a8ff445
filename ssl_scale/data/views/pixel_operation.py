"""What every operation on cropped pixels is: applied to some crops, drawn for each."""

from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_scale.part import Part, Probability
from ssl_scale.rng import Draw

PerCrop: TypeAlias = Probability | tuple[Probability, ...]


class PixelOperation(Part, ABC):
    """Changes the pixels of crops, each with a probability.

    Args:
        probability: of being applied; one number, or one for each crop.
    """

    def __init__(self, probability: PerCrop) -> None:
        self.probability = (probability,) if isinstance(probability, int | float) else probability

    def check_crops(self, crops: int) -> None:
        """Raise `ValueError` unless there is one probability, or one for each crop."""
        if len(self.probability) not in (1, crops):
            raise ValueError(
                f"probability of {type(self).__name__} must be one number or {crops} (one a crop), "
                f"but is {list(self.probability)}"
            )

    def __call__(
        self,
        pixels: Float[Tensor, "n channels height width"],
        draw: Draw,
        crop: Int[Tensor, " n"],
    ) -> Float[Tensor, "n channels height width"]:
        """The pixels, changed where the draw says so.

        Every crop is computed and the changed ones are picked: to compute only those, a GPU would
        have to wait until the host knows how many they are.

        Args:
            pixels: fractions of full brightness.
            draw: one seed for each of the n crops.
            crop: which crop of its sample each of them is.
        """
        if self.probability == (0.0,):
            return pixels
        changed = self.change(pixels, draw)
        if self.probability == (1.0,):
            return changed
        probability = torch.tensor(self.probability, device=pixels.device)
        chosen = draw.uniform("apply") < probability[crop % len(self.probability)]
        return torch.where(chosen[:, None, None, None], changed, pixels)

    @abstractmethod
    def change(
        self, pixels: Float[Tensor, "n channels height width"], draw: Draw
    ) -> Float[Tensor, "n channels height width"]:
        """The pixels of every crop, changed; still in [0, 1]."""


def split_by_crop(draw: Draw, crops: int) -> tuple[Draw, Tensor]:
    """One seed for every crop of every sample, sample by sample, and the crop's number."""
    samples = draw.seeds.shape[0]
    crop = torch.arange(crops, device=draw.seeds.device).repeat(samples)
    return Draw(draw.seeds.repeat_interleave(crops)).child("crop", crop), crop
