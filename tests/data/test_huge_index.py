"""A million shards, a billion samples: opened, read and paid for as if they were ten."""

from pathlib import Path

import pytest

from tests.data.huge import SAMPLES, measure_first_batch, prepare_batches, write_huge

START, BATCH = 900_000_000, 64


@pytest.mark.slow
def test_a_billion_samples_open_in_little_memory_and_disk(tmp_path: Path) -> None:
    huge = write_huge(tmp_path / "huge")
    prepare_batches(huge, [0, START], BATCH)
    size = (huge.folder / "dataset.index").stat().st_size
    assert size / SAMPLES < 12
    far = measure_first_batch(huge.folder, START, BATCH)
    near = measure_first_batch(huge.folder, 0, BATCH)
    for found in (far, near):
        assert found.bytes > BATCH * 300
        # A node: 8 ranks with 8 workers each share what is mapped.
        assert found.shared_mib + 72 * 1.5 < 200
        assert found.private_mib < 16, "the interpreter's own arrays included"
    print(f"{size / SAMPLES:.2f} bytes a sample; far {far}; near {near}")
