"""Layer-wise decay of the learning rate: the further down in an encoder, the slower."""

from collections.abc import Iterable

from torch import nn

from ssl_scale.errors import RecipeError
from ssl_scale.nn.trunk import Trunk


def layer_scales(module: nn.Module, names: Iterable[str], decay: float) -> dict[str, float]:
    """Factors of the learning rate, by parameter name.

    Paper: BEiT, arXiv 2106.08254, appendix; as there, in MAE and in DINOv2, with d blocks numbered
    from 1, block i moves at ``decay ** (d + 1 - i)``, what stands before the blocks (stem,
    positions, prefix) at ``decay ** (d + 1)``, and what follows them (norm, heads) at 1.

    Args:
        module: the system; its encoders are under ``encoders``.
        names: of the parameters; those outside of encoders move at 1.
        decay: in (0, 1].

    Raises:
        RecipeError: an encoder has not exactly one trunk of blocks.
    """
    trunks = {path: part for path, part in module.named_modules() if isinstance(part, Trunk)}
    return {name: decay ** _layers_above(name, trunks) for name in names}


def _layers_above(name: str, trunks: dict[str, Trunk]) -> int:
    """How many layers stand between a parameter and what follows the trunk."""
    section, _, rest = name.partition(".")
    if section != "encoders":
        return 0
    encoder = f"encoders.{rest.partition('.')[0]}"
    own = [path for path in trunks if path.startswith(f"{encoder}.")]
    if len(own) != 1:
        raise RecipeError(
            f"optim.layer_decay must be 1 unless every encoder has one trunk of blocks, but "
            f"{encoder} has {len(own)}; leave it out, or slow parameters down with optim.groups"
        )
    (path,) = own
    depth = len(trunks[path].blocks)
    if not name.startswith(f"{path}."):
        return depth + 1
    part, _, inner = name.removeprefix(f"{path}.").partition(".")
    if part == "blocks":
        return depth - int(inner.partition(".")[0])
    return 0 if part == "norm_after" else depth + 1
