"""``ssl-scale checkpoint diff``: what two checkpoints differ in, whoever wrote them."""

import math
from pathlib import Path

import pytest
import torch

from ssl_scale.checkpoint import difference
from ssl_scale.checkpoint.difference import compare
from ssl_scale.checkpoint.reader import Reader
from ssl_scale.cli.main import main
from ssl_scale.train.checkpoint.contents import Contents, Piece
from ssl_scale.train.checkpoint.writer import Writer
from tests.checkpoint.writing import save

Capture = pytest.CaptureFixture[str]


def diff(*arguments: object) -> int:
    return main(["checkpoint", "diff", *map(str, arguments)])


def write(run: Path, **tensors: torch.Tensor) -> Reader:
    pieces = {f"master/{name}": Piece(t.view(-1), 0, tuple(t.shape)) for name, t in tensors.items()}
    writer = Writer(run / "checkpoints", 0, 1, 1)
    writer.save(1, Contents(pieces), {"done": 1})
    assert writer.join() is None
    return Reader(run / "checkpoints" / "step-000000001")


def test_the_same_values_are_the_same_however_they_were_cut(
    tmp_path: Path, capsys: Capture
) -> None:
    save(tmp_path / "a", 4, world_size=3, zero=3)
    save(tmp_path / "b", 4, world_size=1, zero=0)
    assert diff(tmp_path / "a", tmp_path / "b") == 0
    out = capsys.readouterr().out
    assert "3 processes, ZeRO 3" in out and "1 process, ZeRO 0" in out
    assert out.endswith("5 tensors are the same\n")


def test_values_apart_are_told_worst_first_and_forgiven_if_told(
    tmp_path: Path, capsys: Capture
) -> None:
    save(tmp_path / "a", 4)
    save(tmp_path / "b", 4, shift=0.5)
    assert diff(tmp_path / "a", tmp_path / "b") == 1
    out = capsys.readouterr().out
    assert "tensors of other values, worst first (3):" in out
    assert "  master/encoders.image.w: 0.5 apart, 0.00115 of the largest value" in out  # 0.5 / 434
    assert diff(tmp_path / "a", tmp_path / "b", "--tolerance", "1.49") == 1
    capsys.readouterr()
    assert diff(tmp_path / "a", tmp_path / "b", "--tolerance", "1.5") == 0  # the teacher's


def test_counters_and_steps_of_the_optimizer_are_compared(tmp_path: Path, capsys: Capture) -> None:
    checkpoints = save(tmp_path, 4, 8)
    assert diff(*(checkpoints / f"step-{step:09}" for step in (4, 8))) == 1
    out = capsys.readouterr().out
    assert "  done: 4, 8" in out and "  optimizer.encoders.image.w: 4.0, 8.0" in out
    assert diff(tmp_path, tmp_path, "--step", 4) == 0


def test_a_long_list_is_cut_if_it_is_not_asked_for(tmp_path: Path, capsys: Capture) -> None:
    checkpoints = save(tmp_path, 4, 8)
    two = [checkpoints / f"step-{step:09}" for step in (4, 8)]
    assert diff(*two, "--lines", 1) == 1
    out = capsys.readouterr().out
    assert "  and 1 more; --lines shows them" in out and "optimizer.encoders" not in out


def test_names_and_shapes_that_differ_are_told(tmp_path: Path) -> None:
    one = write(tmp_path / "a", both=torch.ones(2, 3), mine=torch.ones(1))
    other = write(tmp_path / "b", both=torch.ones(3, 2), yours=torch.ones(1))
    found = compare(one, other)
    assert found.only_first == ("master/mine",) and found.only_second == ("master/yours",)
    assert found.shapes == (("master/both", (2, 3), (3, 2)),)
    assert found.same == 0 and not found.is_none


def test_what_is_no_number_is_the_same_only_as_its_like(tmp_path: Path) -> None:
    nan, inf = math.nan, math.inf
    one = write(tmp_path / "a", x=torch.tensor([nan, inf, 1]), y=torch.tensor([0.0]))
    same = write(tmp_path / "b", x=torch.tensor([nan, inf, 1]), y=torch.tensor([0.0]))
    other = write(tmp_path / "c", x=torch.tensor([1, inf, 1]), y=torch.tensor([2.0]))
    assert compare(one, same).is_none
    apart = {value.key: value for value in compare(one, other).values}
    assert apart["master/x"].largest == inf
    assert (apart["master/y"].largest, apart["master/y"].relative) == (2, inf)


def test_large_tensors_are_compared_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(difference, "STRETCH", 4)
    values = torch.arange(10.0)
    one = write(tmp_path / "a", x=values)
    other = write(tmp_path / "b", x=values + torch.tensor([0.0] * 9 + [1.0]))
    [found] = compare(one, other).values
    assert found.largest == 1 and found.relative == pytest.approx(1 / 9)


def test_trouble_exits_with_2(tmp_path: Path, capsys: Capture) -> None:
    save(tmp_path / "a", 4)
    assert diff(tmp_path / "a", tmp_path / "none") == 2
    assert f"{tmp_path / 'none'} must have a checkpoint" in capsys.readouterr().err
