"""The papers' sizes."""

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class Size:
    """How large a trunk is.

    Args:
        width: features of a token.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: features inside the feed-forward layer, over the width.
    """

    width: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0


VisionPreset: TypeAlias = Literal[
    "tiny", "small", "base", "large", "huge", "giant", "giant2", "gigantic"
]
VISION: dict[str, Size] = {
    # DeiT, arXiv 2012.12877, table 1.
    "tiny": Size(192, 12, 3),
    "small": Size(384, 12, 6),
    # ViT, arXiv 2010.11929, table 1.
    "base": Size(768, 12, 12),
    "large": Size(1024, 24, 16),
    "huge": Size(1280, 32, 16),
    # Scaling Vision Transformers, arXiv 2106.04560, table 2: g/14 and G/14.
    "giant": Size(1408, 40, 16, 6144 / 1408),
    "gigantic": Size(1664, 48, 16, 8192 / 1664),
    # DINOv2, arXiv 2304.07193, table 17: its own ViT-g, with wider heads fitted to kernels.
    "giant2": Size(1536, 40, 24),
}

TextPreset: TypeAlias = Literal[
    "tiny", "mini", "small", "medium", "base", "large", "clip_base", "clip_large"
]
TEXT: dict[str, Size] = {
    # Well-Read Students Learn Better, arXiv 1908.08962, table 1.
    "tiny": Size(128, 2, 2),
    "mini": Size(256, 4, 4),
    "small": Size(512, 4, 8),
    "medium": Size(512, 8, 8),
    # BERT, arXiv 1810.04805, section 3.
    "base": Size(768, 12, 12),
    "large": Size(1024, 24, 16),
    # CLIP, arXiv 2103.00020, table 20: text encoders beside ViT-B and ViT-L.
    "clip_base": Size(512, 12, 8),
    "clip_large": Size(768, 12, 12),
}


def choose_size(
    presets: dict[str, Size],
    preset: str | None,
    width: int | None,
    depth: int | None,
    num_heads: int | None,
    mlp_ratio: float | None,
) -> Size:
    """A preset with the explicit arguments over it.

    Raises:
        ValueError: there is no preset, and a size is missing.
    """
    given = {"width": width, "depth": depth, "num_heads": num_heads}
    if preset is None:
        missing = [name for name, value in given.items() if value is None]
        if missing:
            raise ValueError(f"{', '.join(missing)} must be given where there is no preset")
    start = presets[preset] if preset is not None else Size(0, 0, 0)
    return Size(
        width=start.width if width is None else width,
        depth=start.depth if depth is None else depth,
        num_heads=start.num_heads if num_heads is None else num_heads,
        mlp_ratio=start.mlp_ratio if mlp_ratio is None else mlp_ratio,
    )
