"""What a recipe asks for and the machines of this start cannot do together."""

import torch

from ssl_scale.errors import RecipeError
from ssl_scale.recipe.recipe import Recipe


def check_combinations(recipe: Recipe, world_size: int, local_world_size: int) -> None:
    """Refuse what cannot be cut evenly, or what DeepSpeed cannot do here.

    Args:
        recipe: a checked recipe.
        world_size: all processes.
        local_world_size: those of this host.

    Raises:
        RecipeError: says which setting must change.
    """
    train, options = recipe.train, recipe.train.zero_options
    parts = world_size * train.accumulate
    if recipe.data.global_batch % parts:
        raise RecipeError(
            f"data.global_batch must be divisible by processes x train.accumulate = "
            f"{world_size} x {train.accumulate}, but is {recipe.data.global_batch}"
        )
    if options.hpz > 1 and (world_size % options.hpz or options.hpz > local_world_size):
        raise RecipeError(
            f"train.zero_options.hpz must divide the number of processes, {world_size}, and be at "
            f"most those of a host, {local_world_size}, but is {options.hpz}"
        )
    if torch.cuda.is_available():
        return
    if train.precision == "fp16":
        raise RecipeError(
            "train.precision must be fp32 or bf16 on CPUs, where DeepSpeed has no fp16, but is "
            "fp16; set train.precision: bf16"
        )
    for name in ("quantize_weights", "quantize_gradients"):
        if getattr(options, name):
            raise RecipeError(
                f"train.zero_options.{name} must be false on CPUs, for which DeepSpeed has no "
                "quantizer, but is true"
            )
