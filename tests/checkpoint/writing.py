"""Checkpoints of a made-up run, written by its own writers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_scale.checkpoint import layout
from ssl_scale.train.checkpoint.contents import Contents, Piece
from ssl_scale.train.checkpoint.writer import Writer

SHAPE = (5, 7)
STATE: dict[str, Any] = {
    "fingerprint": "ours",
    "zero": 3,
    "precision": "fp32",
    "keep_every": 6,
    "best": {"figure": "loss", "step": 4, "value": 0.5},
}


def weights_after(step: int) -> Tensor:
    return torch.arange(35.0).view(SHAPE) + 100 * step


def contents(step: int, rank: int = 0, world_size: int = 1, shift: float = 0.0) -> Contents:
    """One rank's share of a matrix that is cut into unequal pieces; rank 0 has a buffer too."""
    cuts = [35 * number // world_size for number in range(world_size + 1)]
    values = weights_after(step).view(-1)[cuts[rank] : cuts[rank + 1]].clone()
    values[-1] += shift
    pieces = {
        "master/encoders.image.w": Piece(values, cuts[rank], SHAPE),
        "moment.exp_avg/encoders.image.w": Piece(values / 2, cuts[rank], SHAPE),
        "value/teachers.ema.encoders.image.w": Piece(values * 3, cuts[rank], SHAPE),
    }
    if rank == 0:
        pieces["buffer/encoders.image.seen"] = Piece(torch.tensor([step]), 0, ())
        pieces["observer/probe.seen"] = Piece(torch.tensor([step]), 0, ())
    return Contents(pieces, {"encoders.image.w": float(step)})


def save(run: Path, *steps: int, world_size: int = 1, shift: float = 0.0, **state: Any) -> Path:
    """Write checkpoints, all of which stay; returns the folder that holds them."""
    checkpoints = run / "checkpoints"
    writers = [Writer(checkpoints, rank, world_size, 1, 100) for rank in range(world_size)]
    for step in steps:
        for rank, writer in enumerate(writers):
            told = STATE | {"done": step} | state
            writer.save(step, contents(step, rank, world_size, shift), told)
        assert [writer.join() for writer in writers] == [None] * world_size
    return checkpoints


def flip(path: Path) -> None:
    """Change one bit near the end of a file."""
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def seal_again(folder: Path) -> None:
    """Bring sizes and checksums of a changed checkpoint up to date, as who means harm would."""
    commit = json.loads((folder / layout.COMMIT).read_bytes())
    commit.pop("xxh3")
    for name in commit["files"]:
        path = folder / name
        commit["files"][name] = {"bytes": path.stat().st_size, "xxh3": layout.checksum(path)}
    (folder / layout.COMMIT).write_bytes(layout.seal(commit))


def save_module(
    run: Path, parts: Mapping[str, nn.Module], world_size: int, step: int = 1, **state: Any
) -> Path:
    """Write modules under their names, cut for so many ranks; returns the checkpoint."""
    named = {
        kind: {
            f"{part}.{name}".lstrip("."): tensor.detach()
            for part, module in parts.items()
            for name, tensor in getattr(module, f"named_{kind}s")()
        }
        for kind in ("parameter", "buffer")
    }
    writers = [Writer(run / "checkpoints", rank, world_size, 1) for rank in range(world_size)]
    for rank, writer in enumerate(writers):
        pieces = {}
        for name, tensor in named["parameter"].items():
            kind = "value" if name.startswith("teachers.") else "master"
            start, end = (tensor.numel() * at // world_size for at in (rank, rank + 1))
            if end > start:
                values = tensor.reshape(-1)[start:end].clone()
                pieces[f"{kind}/{name}"] = Piece(values, start, tuple(tensor.shape))
        for name, tensor in named["buffer"].items() if rank == 0 else ():
            values = tensor.reshape(-1).clone()
            pieces[f"buffer/{name}"] = Piece(values, 0, tuple(tensor.shape))
        writer.save(step, Contents(pieces), STATE | {"done": step} | state)
    assert [writer.join() for writer in writers] == [None] * world_size
    return run / "checkpoints" / layout.folder_name(step)
