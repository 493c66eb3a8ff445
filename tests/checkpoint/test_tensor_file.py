"""What is written in one pass is a safetensors file like any other."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ssl_scale.checkpoint import tensor_file
from ssl_scale.checkpoint.layout import checksum
from ssl_scale.checkpoint.tensor_file import write_tensors


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_the_library_reads_it(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_file, "_BLOCK", block)
    tensors = {
        f"master/{dtype} ä": torch.arange(7).to(dtype)
        for dtype in (*tensor_file._DTYPES, torch.bool)
    }
    tensors["value/none"] = torch.empty(0)
    path = tmp_path / "part.safetensors"
    assert write_tensors(path, tensors) == checksum(path)
    found = load_file(path)
    assert found.keys() == tensors.keys()
    for name, values in tensors.items():
        assert found[name].dtype == values.dtype and torch.equal(found[name], values), name


def test_nothing_at_all_is_a_file_too(tmp_path: Path) -> None:
    write_tensors(tmp_path / "part.safetensors", {})
    assert load_file(tmp_path / "part.safetensors") == {}


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, 2), torch.zeros(4)[::2], torch.zeros(2, dtype=torch.complex64)]
)
def test_what_cannot_be_written_flat_is_refused_by_name(
    tensor: torch.Tensor, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="'master/w' must be flat, contiguous"):
        write_tensors(tmp_path / "part.safetensors", {"master/w": tensor})
