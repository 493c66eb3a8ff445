"""Folders in memory where there are such: the tools sync every file, which makes disks slow."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder for one test."""
    with new_folder() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def module_path() -> Iterator[Path]:
    """A folder for the tests of one file."""
    with new_folder() as folder:
        yield Path(folder)


def new_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder that goes when it is left."""
    return tempfile.TemporaryDirectory(
        prefix="ssl-data-test-", dir=MEMORY if MEMORY.is_dir() else None
    )
