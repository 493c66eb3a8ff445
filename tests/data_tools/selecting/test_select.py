"""Selections: who is kept, and the reason why the others are not."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ssl_scale_data_tools.cli import main
from ssl_scale_data_tools.columns.catalog import Catalog


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty texts in three shards, of labels 0 (thirty of them), 1 and 2 (five each)."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for n in range(40):
        (raw / f"s{n:02d}.txt").write_text("x" * (n + 1))
        (raw / f"s{n:02d}.cls").write_text(str(max(0, (n - 20) // 5 - 1)))
    options = ["--shard-size", "15", "--workers", "0"]
    assert main(["build", str(raw), str(tmp_path / "set"), *options]) == 0
    return tmp_path / "set"


def select(folder: Path, *arguments: str) -> int:
    return main(["select", str(folder), *arguments])


def kept(folder: Path, name: str = "selection") -> dict[str, str | None]:
    """Key -> reason, None if it is kept."""
    table = Catalog.open(folder).read(["key", f"{name}.kept", f"{name}.reason"])
    rows = table.to_pylist()
    assert all(row[f"{name}.kept"] == (row[f"{name}.reason"] is None) for row in rows)
    return {row["key"]: row[f"{name}.reason"] for row in rows}


def test_the_first_condition_that_is_not_met_is_the_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert select(folder, "text_chars > 10 and label in [0, 1]") == 0
    told = capsys.readouterr().out
    assert "10 dropped  not: text_chars > 10" in told
    assert "5 dropped  not: label in [0, 1]" in told
    assert "25 kept of 40 (62.5%)" in told
    found = kept(folder)
    assert found["s05"] == "not: text_chars > 10"
    assert found["s36"] == "not: label in [0, 1]"
    assert found["s20"] is None


def test_a_balanced_draw_takes_alike_of_each_value(folder: Path) -> None:
    for size, wanted in ((9, {0: 3, 1: 3, 2: 3}), (20, {0: 10, 1: 5, 2: 5})):
        assert select(folder, "--size", str(size), "--balance", "label") == 0
        table = Catalog.open(folder).read(["label", "selection.kept"]).to_pylist()
        labels = [row["label"] for row in table if row["selection.kept"]]
        assert {label: labels.count(label) for label in sorted(set(labels))} == wanted


def test_a_draw_hangs_on_its_seed_alone(folder: Path) -> None:
    draws = []
    for seed in ("1", "1", "2"):
        assert select(folder, "--size", "8", "--seed", seed) == 0
        draws.append(kept(folder))
    assert draws[0] == draws[1] != draws[2]
    assert list(draws[0].values()).count("not drawn") == 32


def test_what_is_to_be_taken_down_goes_whatever_it_is(folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "takedown.txt"
    listed.write_text("s39\n\ns01\nnone of ours\n")
    assert select(folder, "text_chars > 10", "--drop-keys", str(listed)) == 0
    found = kept(folder)
    assert found["s39"] == found["s01"] == f"listed in {listed}"
    assert found["s02"] == "not: text_chars > 10"


def test_a_selection_may_be_made_of_another(folder: Path) -> None:
    assert select(folder, "text_chars > 10", "--name", "long") == 0
    assert select(folder, "long.kept and label == 0", "--name", "both") == 0
    assert list(kept(folder, "both").values()).count(None) == 20


def test_a_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert select(folder, "text_chars > 10", "--dry-run") == 0
    assert "30 kept of 40" in capsys.readouterr().out
    assert not (folder / "columns").exists()


def test_the_file_says_what_was_wished(folder: Path) -> None:
    assert select(folder, "text_chars > 10", "--size", "3") == 0
    metadata = pq.read_schema(folder / "columns" / "selection.parquet").metadata
    seal = json.loads(metadata[b"ssl_scale.columns"])
    assert seal["tool"] == "select"
    assert seal["arguments"]["condition"] == "text_chars > 10"
    assert seal["arguments"]["size"] == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--size", "0"], "--size must be at least 1"),
        (["--balance", "label"], "--balance must come with --size"),
        (["--name", "../x"], "must be named by small letters"),
        (["nothing > 3"], "there is no column 'nothing'"),
        (["label > 'x'"], "must fit the columns' types"),
        (["--seed", "-1"], "--seed must be from 0"),
    ],
)
def test_what_cannot_be_is_told(
    folder: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert select(folder, *arguments) != 0
    assert told in capsys.readouterr().err
    assert not (folder / "columns").exists()
