"""DeepSpeed ZeRO under Lightning, on GPUs and on CPUs."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ssl_scale import dist

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when deepspeed is imported

import deepspeed
from deepspeed.ops import __compatible_ops__ as compatible_ops
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import nn
from torch.optim import Optimizer

from ssl_scale.train.cluster import LaunchEnvironment

# On CPU, DeepSpeed compiles a shared-memory all-reduce that only its inference engine calls: a
# minute and a compiler for nothing.
compatible_ops["deepspeed_shm_comm"] = False


def zero_config(
    stage: int, precision: str, per_device_batch: int, clip: float, world_size: int
) -> dict[str, Any]:
    """DeepSpeed's configuration; everything that it would otherwise guess is written out.

    Args:
        stage: ZeRO stage, 0 to 3.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        per_device_batch: samples a micro-batch on one rank.
        clip: largest gradient norm; 0 means no clipping.
        world_size: data ranks.
    """
    return {
        "train_micro_batch_size_per_gpu": per_device_batch,
        "train_batch_size": per_device_batch * world_size,
        "gradient_accumulation_steps": 1,
        # The step program owns the boundary: several backward passes, one optimizer step.
        "managed_gradient_accumulation": False,
        "gradient_clipping": clip,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": stage,
            "contiguous_gradients": True,
            "overlap_comm": torch.cuda.is_available(),
        },
        "steps_per_print": None,
    }


class ZeroStrategy(DeepSpeedStrategy):
    """Lightning's DeepSpeed strategy without its insistence on CUDA, and with our rendezvous.

    Args:
        config: what `zero_config` gives.
        timeout_s: how long a collective may wait for the other ranks.
    """

    def __init__(self, config: dict[str, Any], timeout_s: float = 1800.0) -> None:
        super().__init__(
            config=config, cluster_environment=LaunchEnvironment(), logging_level=30
        )
        self.timeout_s = timeout_s

    def setup_environment(self) -> None:
        """Set the accelerator up; the parent's version refuses CPUs."""
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """Join the process group at the launcher's meeting point, then tell DeepSpeed."""
        self.set_world_ranks()
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        with _private_meeting_point(self.world_size):
            self._set_node_environment_variables()
            dist.start(backend, self.global_rank, self.world_size, self.timeout_s)
        deepspeed.init_distributed(backend, dist_init_required=False)

    def _setup_model_and_optimizer(
        self, model: nn.Module, optimizer: Optimizer | None, lr_scheduler: Any = None
    ) -> tuple[Any, Any]:
        # args=None: the parent passes a device index, which a CPU does not have.
        engine, zero_optimizer, _, _ = deepspeed.initialize(
            args=None,
            config=self.config,
            model=model,
            model_parameters=[p for p in model.parameters() if p.requires_grad],
            optimizer=optimizer,
            dist_init_required=False,
        )
        return engine, zero_optimizer

    def teardown(self) -> None:
        """Leave the process group: a process that exits inside one may abort."""
        super().teardown()
        dist.stop()


@contextlib.contextmanager
def _private_meeting_point(world_size: int) -> Iterator[None]:
    """For one process that no launcher started: a file of its own instead of a port."""
    if world_size > 1 or "SSL_SCALE_RENDEZVOUS" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SSL_SCALE_RENDEZVOUS"] = (Path(folder) / "rendezvous").as_uri()
        try:
            yield
        finally:
            del os.environ["SSL_SCALE_RENDEZVOUS"]
