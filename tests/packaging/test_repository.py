"""What is kept under version control: sources, and nothing that a run leaves behind."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {".ci", "data_tools", "docker", "docs", "launch", "recipes", "ssl_scale", "tests"}
LARGEST = 500_000


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a checkout")
    return [Path(name) for name in done.stdout.split("\0") if name]


def test_no_folder_is_there_that_nobody_planned(tracked: list[Path]) -> None:
    assert {path.parts[0] for path in tracked if len(path.parts) > 1} <= FOLDERS


def test_no_file_is_as_large_as_data_are(tracked: list[Path]) -> None:
    sizes = {str(path): (ROOT / path).stat().st_size for path in tracked if (ROOT / path).exists()}
    assert {name: size for name, size in sizes.items() if size > LARGEST} == {}


def test_what_the_demo_leaves_is_ignored() -> None:
    done = subprocess.run(["git", "check-ignore", "-q", "demo_run/raw"], cwd=ROOT)
    if done.returncode == 128:
        pytest.skip("not a checkout")
    assert done.returncode == 0
