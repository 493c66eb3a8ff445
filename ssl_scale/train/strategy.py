"""DeepSpeed ZeRO under Lightning, on GPUs and on CPUs."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from ssl_scale import dist

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when deepspeed is imported

import deepspeed
from deepspeed.ops import __compatible_ops__ as compatible_ops
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import nn
from torch.optim import Optimizer

from ssl_scale.recipe.train_plan import TrainPlan
from ssl_scale.recipe.zero_options import ZeroOptions
from ssl_scale.train.cluster import LaunchEnvironment

# On CPU, DeepSpeed compiles a shared-memory all-reduce that only its inference engine calls: a
# minute and a compiler for nothing.
compatible_ops["deepspeed_shm_comm"] = False


def zero_config(
    plan: TrainPlan, per_device_batch: int, clip: float, world_size: int
) -> dict[str, Any]:
    """DeepSpeed's configuration; everything that it would otherwise guess is written out.

    Args:
        plan: stage, its options and the precision.
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
        "bf16": {"enabled": plan.precision == "bf16"},
        "fp16": {"enabled": plan.precision == "fp16"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": _zero_section(plan.zero, plan.zero_options),
        "steps_per_print": None,
    }


def _zero_section(stage: int, options: ZeroOptions) -> dict[str, Any]:
    section: dict[str, Any] = {
        "stage": stage,
        "contiguous_gradients": True,
        "overlap_comm": options.overlap and torch.cuda.is_available(),
    }
    host = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if options.offload_optimizer:
        section["offload_optimizer"] = host
    if options.offload_parameters:
        section["offload_param"] = host
    if options.hpz > 1:
        section["zero_hpz_partition_size"] = options.hpz
    if options.quantize_weights:
        section["zero_quantized_weights"] = True
    if options.quantize_gradients:
        section["zero_quantized_gradients"] = True
    if options.bucket is not None:
        section |= {"reduce_bucket_size": options.bucket, "allgather_bucket_size": options.bucket}
    return section


class KeepInputs(DeepSpeedPrecision):
    """Leaves batches alone: the step casts views, and Lightning refuses frozen dataclasses."""

    def convert_input(self, data: Any) -> Any:
        """The same data."""
        return data


class ZeroStrategy(DeepSpeedStrategy):
    """Lightning's DeepSpeed strategy without its insistence on CUDA, and with our rendezvous.

    Args:
        config: what `zero_config` gives.
        timeout_s: how long a collective may wait for the other ranks.
    """

    def __init__(self, config: dict[str, Any], timeout_s: float = 1800.0) -> None:
        super().__init__(
            config=config,
            cluster_environment=LaunchEnvironment(),
            precision_plugin=KeepInputs("32-true"),
            logging_level=30,
        )
        self.timeout_s = timeout_s
        self._meeting_point: tempfile.TemporaryDirectory[str] | None = None
        self._config_initialized = True  # `zero_config` is complete; Lightning need not fill it

    def setup_environment(self) -> None:
        """Set the accelerator up; the parent's version refuses CPUs."""
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """Join the process group at the launcher's meeting point, then tell DeepSpeed."""
        self.set_world_ranks()
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        if self.world_size == 1 and "SSL_SCALE_RENDEZVOUS" not in os.environ:
            # One process that no launcher started meets nobody: a file instead of a port. DeepSpeed
            # makes further groups through it, so it lives as long as the process group.
            self._meeting_point = tempfile.TemporaryDirectory(prefix="ssl_scale_")
            address = Path(self._meeting_point.name) / "rendezvous"
            os.environ["SSL_SCALE_RENDEZVOUS"] = address.as_uri()
        if LaunchEnvironment().is_one_host:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else the host's name decides
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

    def training_step(self, *arguments: Any, **options: Any) -> Any:
        """Call the module itself: programs enter the engine once for each forward pass.

        The parent would run the whole step inside one ``engine.forward``; DeepSpeed counts
        micro-batches there, so a second backward pass would overwrite ZeRO-3's gradients.
        """
        assert self.lightning_module is not None
        return self.lightning_module.training_step(*arguments, **options)

    def teardown(self) -> None:
        """Leave the process group after training."""
        super().teardown()
        self.leave()

    def leave(self) -> None:
        """Leave the process group, if we are in it: a process that exits inside one may abort."""
        dist.stop()
        if self._meeting_point is not None:
            del os.environ["SSL_SCALE_RENDEZVOUS"]
            self._meeting_point.cleanup()
            self._meeting_point = None
