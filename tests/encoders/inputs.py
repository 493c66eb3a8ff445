"""Small encoders and views that the tests of this room share."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ssl_scale.encoders.encoder import Encoder
from ssl_scale.encoders.text import TextTransformer
from ssl_scale.encoders.vision import VisionTransformer
from ssl_scale.types import View

VOCAB, MASK = 50, 3


def vision(**options: Any) -> VisionTransformer:
    """Pictures of 8 x 8 pixels in 16 patches."""
    defaults = {"width": 24, "depth": 2, "num_heads": 3, "patch": 2, "size_px": 8, "channels": 1}
    torch.manual_seed(1)
    return VisionTransformer(**{**defaults, **options}).double()


def text(**options: Any) -> TextTransformer:
    """Texts of at most 12 tokens."""
    defaults: dict[str, Any] = {"width": 24, "depth": 2, "num_heads": 3, "max_tokens": 12}
    given = {"vocab_size": VOCAB, "mask_token": MASK}
    torch.manual_seed(1)
    return TextTransformer(**{**defaults, **given, **options}).double()


def pictures(batch: int = 3, crops: int = 2, size: tuple[int, int] = (8, 8)) -> View:
    values = torch.randn(batch, crops, 1, *size, dtype=torch.float64)
    valid = torch.ones(batch, crops, 1, dtype=torch.bool)
    return View(values, valid, torch.arange(batch) + 100)


def texts(lengths: Sequence[Sequence[int]] = ((9, 4), (1, 12), (12, 3)), pad_to: int = 12) -> View:
    """``lengths[sample][crop]``; what lies in the padding is no id."""
    valid = torch.arange(pad_to) < torch.tensor(lengths)[..., None]
    ids = torch.randint(4, VOCAB, valid.shape)
    return View(torch.where(valid, ids, -7), valid, torch.arange(len(lengths)) + 100)


KINDS: dict[str, tuple[Callable[..., Encoder], Callable[..., View]]] = {
    "vision": (vision, pictures),
    "text": (text, texts),
}


def rows(view: View, chosen: Sequence[int]) -> View:
    """Some samples of a view, in the given order."""
    index = torch.tensor(chosen, dtype=torch.int64)
    return View(view.values[index], view.valid[index], view.seeds[index])
