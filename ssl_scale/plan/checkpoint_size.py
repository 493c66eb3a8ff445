"""Bytes of a checkpoint's folder, and how many a run keeps."""

from ssl_scale.plan.memory import ITEM_BYTES
from ssl_scale.plan.parameters import Inventory
from ssl_scale.recipe.train_plan import TrainPlan

# Each tensor is described twice, in its safetensors file and on the rank's page: its name, and
# about so many other characters in both together.
_DESCRIBED = 165


def checkpoint_bytes(inventory: Inventory, precision: str, moments: int) -> int:
    """One checkpoint, all ranks' parts together; without what callbacks remember.

    Trained parameters and moments are saved in fp32, teachers' averages too.
    """
    size = ITEM_BYTES[precision]
    values = 4 * (1 + moments) * inventory.trained + 4 * sum(inventory.averaged)
    values += size * (sum(inventory.frozen) + sum(inventory.copied)) + inventory.buffers
    tensors = len(inventory.names) + moments * sum(map(len, inventory.groups))
    mean_name = sum(map(len, inventory.names)) // len(inventory.names)
    return values + tensors * (2 * mean_name + _DESCRIBED)


def kept_checkpoints(train: TrainPlan, steps: int) -> int:
    """How many stay at the end of a run: newest ones, periodic ones, the best."""
    saved = sorted({*range(train.save_every, steps + 1, train.save_every), steps})
    kept = set(saved[-max(train.keep_last, 1) :])
    if train.keep_every:
        kept |= {step for step in saved if step % train.keep_every == 0}
    return len(kept) + (train.best is not None)
