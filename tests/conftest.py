"""What holds for every test: checked types, fixed seeds, real test data where it is at hand."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from tests import typechecking

# Before any test module imports the package.
install_import_hook("ssl_scale", f"{typechecking.__name__}.checked")

# The same examples in every run; a slow machine is no failure.
settings.register_profile("fixed", derandomize=True, deadline=None, print_blob=False)
settings.load_profile("fixed")

ROOT = Path(__file__).parents[1]
DEFAULT_TEST_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _fixed_seeds() -> Iterator[None]:
    """Every test starts from the same seeds, whatever ran before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """A folder of small real data sets, one subfolder each.

    Its place is SSL_SCALE_TEST_DATA. Without it tests are skipped, but where CI is true they fail.
    """
    folder = Path(os.environ.get("SSL_SCALE_TEST_DATA", DEFAULT_TEST_DATA))
    if folder.is_dir():
        return folder
    message = f"SSL_SCALE_TEST_DATA must be a folder of test data, but {folder} does not exist"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
