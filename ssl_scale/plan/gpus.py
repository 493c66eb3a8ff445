"""What a GPU can do at most, by its maker's data sheet: dense, without sparsity."""

from dataclasses import dataclass

from ssl_scale.errors import SslScaleError


@dataclass(frozen=True)
class GPU:
    """A kind of GPU.

    Args:
        name: as people write it.
        half_tflops: 10^12 operations a second in bf16 or fp16 on tensor cores, summed in fp32.
        fp32_tflops: the same in fp32; the engine does not switch to TF32.
        memory_gb: its memory, 10^9 bytes.
        source: the data sheet.
    """

    name: str
    half_tflops: float
    fp32_tflops: float
    memory_gb: float
    source: str

    def peak_tflops(self, precision: str) -> float:
        """In a recipe's precision."""
        return self.fp32_tflops if precision == "fp32" else self.half_tflops


GPUS = {
    gpu.name: gpu
    for gpu in (
        GPU("a100", 312, 19.5, 80, "NVIDIA A100 80GB SXM data sheet"),
        GPU("h100", 989, 67, 80, "NVIDIA H100 SXM data sheet (1979 with sparsity)"),
        GPU("h200", 989, 67, 141, "NVIDIA H200 SXM data sheet (1979 with sparsity)"),
        GPU("l40s", 362, 91.6, 48, "NVIDIA L40S data sheet (733 with sparsity)"),
        GPU("mi300x", 1307, 163.4, 192, "AMD Instinct MI300X data sheet"),
    )
}


def read_bytes(text: str) -> int:
    """A size such as ``80GB`` or ``40GiB`` in bytes.

    Raises:
        SslScaleError: it is none.
    """
    units = {"GIB": 2**30, "GB": 10**9, "MIB": 2**20, "MB": 10**6}
    for unit, factor in units.items():
        number = text.strip().upper().removesuffix(unit)
        if number != text.strip().upper():
            try:
                value = float(number)
            except ValueError:
                break
            if 0 < value < float("inf"):
                return round(value * factor)
    raise SslScaleError(f"--gpu-memory must be a size such as 80GB or 40GiB, but is {text!r}")
