"""Cutting pictures into patches."""

from jaxtyping import Float
from torch import Tensor, nn

from ssl_scale.nn.linear import Linear


def patch_grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches.

    Raises:
        ValueError: a side is no multiple of the patch.
    """
    if height % patch or width % patch:
        raise ValueError(
            f"image height and width must be multiples of patch={patch}, but are {height} x {width}"
        )
    return height // patch, width // patch


def patchify(
    images: Float[Tensor, "images channels height width"], patch: int
) -> Float[Tensor, "images patches values"]:
    """Patches row by row; one's values are ordered (channel, row, column), as in a convolution."""
    count, channels, height, width = images.shape
    rows, columns = patch_grid(height, width, patch)
    cut = images.reshape(count, channels, rows, patch, columns, patch)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(count, rows * columns, channels * patch * patch)


def unpatchify(
    patches: Float[Tensor, "images patches values"], grid: tuple[int, int], patch: int
) -> Float[Tensor, "images channels height width"]:
    """The inverse of `patchify`."""
    count, rows, columns = patches.shape[0], *grid
    cut = patches.reshape(count, rows, columns, -1, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return cut.reshape(count, -1, rows * patch, columns * patch)


class PatchEmbed(nn.Module):
    """A linear layer on each patch: the convolution of ViT with stride and kernel `patch`.

    Args:
        patch: side of a patch, pixels.
        channels: of the images.
        width: features of a token.
        init_std: see `Linear`.
    """

    def __init__(
        self, patch: int, channels: int, width: int, init_std: float | None = None
    ) -> None:
        super().__init__()
        self.patch = patch
        self.projection = Linear(channels * patch * patch, width, init_std=init_std)

    def forward(
        self, images: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images patches width_"]:
        """One token a patch."""
        tokens: Tensor = self.projection(patchify(images, self.patch))
        return tokens
