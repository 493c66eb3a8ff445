"""Columns stand beside the manifest, in its order, and are refused once the contents differ."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from ssl_scale_data_tools.cli import main
from ssl_scale_data_tools.columns.catalog import Catalog
from ssl_scale_data_tools.columns.seal import Seal
from ssl_scale_data_tools.columns.store import columns_file, write_columns

from ssl_scale.data.index import read_dataset
from ssl_scale.errors import DataError

ROWS = 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures in three shards."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(ROWS):
        file = io.BytesIO()
        Image.new("RGB", (8 + number, 8), (20 * number, 0, 0)).save(file, "PNG")
        (raw / f"p{number}.png").write_bytes(file.getvalue())
        (raw / f"p{number}.cls").write_text(str(number % 3))
    options = ["--shard-size", "4", "--workers", "0"]
    assert main(["build", str(raw), str(tmp_path / "set"), *options]) == 0
    return tmp_path / "set"


def add(folder: Path, name: str, values: list[int | None], **arguments: object) -> Path:
    schema = pa.schema([("score", pa.int64())])
    batches = [
        pa.record_batch([pa.array(values[start : start + 3], pa.int64())], schema=schema)
        for start in range(0, len(values), 3)
    ]
    seal = Seal.of("testing", 1, arguments, read_dataset(folder))
    return write_columns(folder, name, seal, schema, batches)


def test_columns_of_several_files_come_side_by_side(folder: Path) -> None:
    add(folder, "one", list(range(ROWS)))
    add(folder, "two", [None, *range(1, ROWS)])
    catalog = Catalog.open(folder)
    for rows in (1, 3, 4, 100):
        batches = list(catalog.batches(["two.score", "key", "one.score"], rows))
        assert [batch.num_rows for batch in batches[:-1]] == [rows] * (len(batches) - 1)
        table = pa.Table.from_batches(batches)
        assert table.column_names == ["two.score", "key", "one.score"]
        assert table["one.score"].to_pylist() == list(range(ROWS))
        assert table["two.score"].to_pylist() == [None, *range(1, ROWS)]
        assert table["key"].to_pylist() == catalog.read(["key"])["key"].to_pylist()


def test_a_tools_column_needs_no_tools_name_where_it_is_clear(folder: Path) -> None:
    add(folder, "one", list(range(ROWS)))
    assert Catalog.open(folder).resolve("score") == "one.score"
    add(folder, "two", list(range(ROWS)))
    with pytest.raises(DataError, match="must be one column, but may be one.score, two.score"):
        Catalog.open(folder).resolve("score")
    with pytest.raises(DataError, match="no column 'widht'; did you mean width"):
        Catalog.open(folder).resolve("widht")


def test_the_file_says_how_it_was_made(folder: Path) -> None:
    add(folder, "one", list(range(ROWS)), threshold=0.5)
    seal = Catalog.open(folder).seals["one"]
    assert (seal.tool, seal.arguments, seal.samples) == ("testing", {"threshold": 0.5}, ROWS)
    assert seal.dataset == read_dataset(folder).fingerprint


def test_columns_of_former_contents_are_refused_but_harm_no_others(folder: Path) -> None:
    path = add(folder, "one", list(range(ROWS)))
    other = Seal("testing", 1, {}, "0" * 32, ROWS)
    write_columns(folder, "two", other, pa.schema([("x", pa.int64())]), one_batch(ROWS))
    catalog = Catalog.open(folder)
    assert catalog.read(["one.score"]).num_rows == ROWS
    with pytest.raises(DataError, match="made of others, 10; make it again with ssl-data testing"):
        catalog.resolve("two.x")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"one\.parquet: must be Parquet, but is damaged"):
        Catalog.open(folder)


def one_batch(rows: int) -> list[pa.RecordBatch]:
    return [pa.record_batch([pa.array(range(rows), pa.int64())], names=["x"])]


@pytest.mark.parametrize("rows", [ROWS - 1, ROWS + 1])
def test_a_row_too_few_or_too_many_leaves_the_former_columns(folder: Path, rows: int) -> None:
    before = add(folder, "one", list(range(ROWS))).read_bytes()
    with pytest.raises(DataError, match=f"a row for each of 10 samples, but would have {rows}"):
        add(folder, "one", list(range(rows)))
    assert columns_file(folder, "one").read_bytes() == before
    assert [path.name for path in (folder / "columns").iterdir()] == ["one.parquet"]


@pytest.mark.parametrize("name", ["../x", "a b", "A", "", "1x", "a.b"])
def test_a_name_that_no_condition_could_say_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(DataError, match="must be named by small letters"):
        columns_file(folder, name)


def test_foreign_parquet_is_refused(folder: Path) -> None:
    import pyarrow.parquet as pq

    (folder / "columns").mkdir()
    pq.write_table(pa.table({"x": range(ROWS)}), folder / "columns" / "mine.parquet")
    with pytest.raises(DataError, match="bears no seal"):
        Catalog.open(folder)


def test_stats_and_show_tell_what_is_known(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(folder, "one", [None, *range(1, ROWS)])
    assert main(["stats", str(folder), "--json"]) == 0
    told = {each["name"]: each for each in json.loads(capsys.readouterr().out)["columns"]}
    assert (told["width"]["least"], told["width"]["greatest"]) == (8, 17)
    assert told["width"]["mean"] == pytest.approx(12.5)
    assert told["label"]["values"] == {"0": 4, "1": 3, "2": 3}
    assert (told["one.score"]["present"], told["one.score"]["missing"]) == (9, 1)
    assert main(["stats", str(folder)]) == 0
    assert "width (int32): 10 values" in capsys.readouterr().out

    row = Catalog.open(folder).read(["key", "one.score"]).to_pylist()[7]
    assert main(["show", str(folder), row["key"], "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["row"], shown["one.score"]) == (7, row["one.score"])
    assert main(["show", str(folder), "xp1"]) == 2
    assert "there is no sample 'xp1'" in capsys.readouterr().err
