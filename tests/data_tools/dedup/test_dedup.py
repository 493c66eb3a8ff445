"""``ssl-data dedup``: every planted copy is found, and nothing else."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ssl_scale_data_tools.cli import main
from ssl_scale_data_tools.columns.catalog import Catalog

PICTURES, COPIES = 60, 15


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def build(folder: Path, samples: dict[str, tuple[bytes, str]]) -> Path:
    raw = folder.with_name(f"{folder.name}-raw")
    raw.mkdir()
    for key, (pixels, caption) in samples.items():
        (raw / f"{key}.png").write_bytes(pixels)
        (raw / f"{key}.txt").write_text(caption)
    assert main(["build", str(raw), str(folder), "--shard-size", "20", "--workers", "0"]) == 0
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty pictures, fifteen of them twice: the second time ten have another caption."""
    samples = {f"p{n:02d}": (picture(n), f"caption {n}") for n in range(PICTURES)}
    for n in range(COPIES):
        samples[f"z{n:02d}"] = (picture(n), f"caption {n}" if n < 5 else f"another {n} here")
    return build(tmp_path / "set", samples)


def dedup(folder: Path, *arguments: str) -> int:
    return main(["dedup", str(folder), "--workers", "0", *arguments])


def groups(folder: Path, name: str = "exact") -> set[tuple[str, str]]:
    """Pairs of (copy, the one that stays)."""
    table = Catalog.open(folder).read(["key", f"{name}.is_duplicate", f"{name}.group"]).to_pylist()
    return {
        (row["key"], table[row[f"{name}.group"]]["key"])
        for row in table
        if row[f"{name}.is_duplicate"]
    }


def planted(first: int) -> set[frozenset[str]]:
    return {frozenset((f"p{n:02d}", f"z{n:02d}")) for n in range(first)}


def test_whole_samples_that_are_the_same_are_found(folder: Path) -> None:
    assert dedup(folder) == 0
    assert {frozenset(pair) for pair in groups(folder)} == planted(5)


def test_pictures_that_are_the_same_are_found_whatever_their_captions(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dedup(folder, "--field", "png") == 0
    assert {frozenset(pair) for pair in groups(folder)} == planted(COPIES)
    assert (
        f"{COPIES} are copies of others, of {PICTURES + COPIES} samples" in capsys.readouterr().out
    )
    copies = Catalog.open(folder).read(["copies"])["copies"].to_pylist()
    assert sorted(copies) == [1] * (PICTURES - COPIES) + [2] * (2 * COPIES)
    assert main(["select", str(folder), "not is_duplicate"]) == 0
    kept = Catalog.open(folder).read(["selection.kept"])["selection.kept"].to_pylist()
    assert sum(kept) == PICTURES


def test_of_copies_the_one_with_the_most_stays(folder: Path) -> None:
    assert dedup(folder, "--field", "png", "--keep", "text_chars") == 0
    longer = {(f"p{n:02d}", f"z{n:02d}") for n in range(5, COPIES)}
    assert longer <= groups(folder)


def test_samples_of_another_data_set_are_found(folder: Path, tmp_path: Path) -> None:
    other = build(
        tmp_path / "eval", {f"e{n}": (picture(n), "other") for n in (0, 30, 31, 1000, 1001)}
    )
    assert dedup(folder, "--field", "png", "--against", str(other), "--name", "eval") == 0
    table = Catalog.open(folder).read(["key", "eval.found_in"]).to_pylist()
    found = {row["key"]: row["eval.found_in"] for row in table if row["eval.found_in"]}
    assert found == dict.fromkeys(("p00", "z00", "p30", "p31"), str(other))


def test_what_is_hashed_once_is_not_hashed_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dedup(folder, "--field", "png") == 0
    first = (folder / "columns" / "exact.parquet").read_bytes()
    capsys.readouterr()
    assert dedup(folder, "--field", "png") == 0
    assert "4 of 4 tasks were done before" in capsys.readouterr().err
    assert (folder / "columns" / "exact.parquet").read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--field", "jpg"], "--field must be a member's extension, but is 'jpg'; there are png"),
        (["--keep", "key"], "--keep must be a column of numbers"),
        (["--keep", "wdth"], "did you mean width"),
        (["--name", "A b"], "must be named by small letters"),
    ],
)
def test_what_cannot_be_is_told(
    folder: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dedup(folder, *arguments) == 2
    assert told in capsys.readouterr().err
