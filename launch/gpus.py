"""Which GPUs a run on this machine uses, found without importing torch."""

import os
import shutil
import subprocess
from collections.abc import Mapping

from ssl_scale.errors import SslScaleError


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that this shell may use: what CUDA_VISIBLE_DEVICES says, else all of them."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu.strip() for gpu in chosen.split(",") if gpu.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi", path=environment.get("PATH", os.defpath))
    if program is None:
        return []
    query = [program, "--query-gpu=index", "--format=csv,noheader"]
    listed = subprocess.run(
        query, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60
    )
    return listed.stdout.split() if listed.returncode == 0 else []


def choose_gpus(asked: str | None, visible: list[str]) -> list[str]:
    """The GPUs that ``--gpus`` means.

    Args:
        asked: a number (the first so many), names joined by commas, or None for all.
        visible: what there is.
    """
    if asked is None:
        return visible
    if "," in asked:
        names = [name.strip() for name in asked.split(",") if name.strip()]
        unknown = [name for name in names if name not in visible]
        if unknown or len(set(names)) < len(names):
            raise SslScaleError(
                f"--gpus must name different GPUs out of {', '.join(visible) or 'none'}, "
                f"but is {asked!r}"
            )
        return names
    if not asked.isdecimal() or int(asked) > len(visible):
        raise SslScaleError(
            f"--gpus must be a number from 0 to {len(visible)} (the GPUs here) or names joined by "
            f"commas, but is {asked!r}"
        )
    return visible[: int(asked)]
