"""Masks of packed samples: drawn for each sample as if it lay in a row of its own."""

from ssl_scale.types import Mask, View


def pack_mask(mask: Mask, view: View) -> Mask:
    """Lay the samples' masks end to end, as the view does.

    Args:
        mask: of the samples in rows of their own, ``[batch, 1, tokens]``.
        view: packed.

    Raises:
        ValueError: the mask has targets, which no objective on packed samples reads.
    """
    if mask.targets is not None:
        raise ValueError("a mask with targets of its own cannot cover packed samples")
    document, place = view.documents()
    place = place.clamp(max=mask.hidden.shape[-1] - 1)
    hidden = mask.hidden[document, 0, place][None, None] & view.valid
    fill = None if mask.fill is None else mask.fill[document, 0, place][None, None]
    return Mask(hidden, mask.mode, fill)
