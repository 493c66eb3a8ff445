"""``train.zero_options``: how DeepSpeed ZeRO does what ``train.zero`` asks for."""

from dataclasses import dataclass

from ssl_scale.part import Count


@dataclass(frozen=True)
class ZeroOptions:
    """Where shares lie, and how they travel.

    Args:
        offload_optimizer: masters and moments lie in host memory, and the CPU steps them
            (ZeRO-Offload, arXiv 2101.06840); stages 1 to 3.
        offload_parameters: parameters lie in host memory between uses; stage 3.
        hpz: ranks, those of a node, that share a second copy of the parameters, so that the
            backward pass need not gather them from other nodes (hpZ of ZeRO++, arXiv 2306.10209);
            stage 3. 1 means no such copy.
        quantize_weights: parameters are gathered in 8 bits (qwZ of ZeRO++); stage 3, GPUs.
        quantize_gradients: gradients are reduced in 4 bits between nodes (qgZ of ZeRO++); stage 3,
            GPUs.
        overlap: gradients are reduced, and under stage 3 parameters gathered, while others are
            computed; on GPUs.
        bucket: numbers that are reduced at once, and at stages 1 and 2 gathered; None leaves it to
            DeepSpeed.
    """

    offload_optimizer: bool = False
    offload_parameters: bool = False
    hpz: Count = 1
    quantize_weights: bool = False
    quantize_gradients: bool = False
    overlap: bool = True
    bucket: Count | None = None

    @property
    def needs_stage_3(self) -> tuple[str, ...]:
        """Names of the options in use that only stage 3 knows."""
        used = {
            "offload_parameters": self.offload_parameters,
            "hpz": self.hpz > 1,
            "quantize_weights": self.quantize_weights,
            "quantize_gradients": self.quantize_gradients,
        }
        return tuple(name for name, is_used in used.items() if is_used)
