"""Images as a view: plain for reconstruction and evaluation, augmented for contrast."""

from ssl_scale.data.views.geometry import Padding, Warp, warp
from ssl_scale.data.views.pixel_operation import PixelOperation, split_by_crop
from ssl_scale.data.views.pixels import fit_square, normalize, to_fractions
from ssl_scale.data.views.view import ViewMaker, dense_field, present_samples
from ssl_scale.part import Count, FieldName, NonNegative, Positive, Probability
from ssl_scale.rng import Draw
from ssl_scale.types import Batch, View


class ImageView(ViewMaker):
    """The image as it is: resized to a square if asked, normalised, one crop.

    Args:
        field: an image field.
        size_px: side of the view; the shorter side is resized to it and the centre cut out. None
            keeps the field's size.
        mean: brightness that becomes 0; one number, or one a channel.
        std: deviation of brightness that becomes 1; one number, or one a channel.
    """

    def __init__(
        self,
        field: FieldName,
        size_px: Count | None = None,
        mean: tuple[Probability, ...] = (0.5,),
        std: tuple[Positive, ...] = (0.5,),
    ) -> None:
        self.field, self.size_px, self.mean, self.std = field, size_px, mean, std

    def __call__(self, batch: Batch, draw: Draw) -> View:
        """Values ``[batch, 1, channels, height, width]``."""
        pixels = to_fractions(dense_field(batch, self.field))
        if self.size_px is not None:
            pixels = fit_square(pixels, self.size_px)
        valid = present_samples(batch, self.field)[:, None, None]
        return View(normalize(pixels, self.mean, self.std)[:, None], valid, batch.seeds)


class AugmentedImage(ViewMaker):
    """Several random crops of each image, warped, recoloured and normalised.

    Paper: A Simple Framework for Contrastive Learning of Visual Representations, arXiv 2002.05709,
    appendix A, for the crop; BYOL, arXiv 2006.07733, appendix B, for operations that differ between
    the crops.

    Differs: crop corners are not rounded to whole pixels; crop, flip, rotation and shift are one
    resampling; the operations on pixels run in the order of the recipe, not in a random one.

    Args:
        field: an image field.
        size_px: side of a crop.
        crops: number of crops of each image.
        scale: smallest and largest share of the image's area that a crop covers.
        ratio: smallest and largest width / height of a crop.
        flip: probability of mirroring left and right.
        rotate_degrees: largest rotation to either side.
        translate: largest shift to either side, as a share of the crop's side.
        padding: what lies outside of the image: its border repeated, or black.
        pixels: operations on the cropped pixels, in their order.
        mean: brightness that becomes 0; one number, or one a channel.
        std: deviation of brightness that becomes 1; one number, or one a channel.
    """

    def __init__(
        self,
        field: FieldName,
        size_px: Count,
        crops: Count = 2,
        scale: tuple[Positive, Positive] = (0.2, 1.0),
        ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3),
        flip: Probability = 0.5,
        rotate_degrees: NonNegative = 0.0,
        translate: NonNegative = 0.0,
        padding: Padding = "border",
        pixels: tuple[PixelOperation, ...] = (),
        mean: tuple[Probability, ...] = (0.5,),
        std: tuple[Positive, ...] = (0.5,),
    ) -> None:
        self.field, self.size_px, self.crops = field, size_px, crops
        self.warp = Warp(scale, ratio, flip, rotate_degrees, translate, padding)
        for operation in pixels:
            operation.check_crops(crops)
        self.pixels, self.mean, self.std = pixels, mean, std

    def __call__(self, batch: Batch, draw: Draw) -> View:
        """Values ``[batch, crops, channels, size, size]``."""
        images = to_fractions(dense_field(batch, self.field))
        pixels = warp(images, self.warp, self.size_px, self.crops, draw.child("warp"))
        flat, crop_draw, crop = pixels.flatten(0, 1), *split_by_crop(draw, self.crops)
        for place, operation in enumerate(self.pixels):
            flat = operation(flat, crop_draw.child("pixels", place), crop)
        values = normalize(flat, self.mean, self.std).reshape(pixels.shape)
        present = present_samples(batch, self.field)
        return View(values, present[:, None, None].expand(-1, self.crops, 1), batch.seeds)
