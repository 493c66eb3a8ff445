"""Exit codes tell a launcher whether to start again may help."""

import errno

import pytest

from ssl_scale.errors import CheckpointError, DataError, NotSavedError, exit_code_of


def caused_by(cause: BaseException) -> DataError:
    try:
        try:
            raise cause
        except type(cause) as error:
            raise DataError("x must be written, but is not") from error
    except DataError as error:
        return error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_is_no_mistake_of_the_recipe(number: int) -> None:
    assert exit_code_of(caused_by(OSError(number, "of the disk"))) == 74


def test_what_the_user_can_mend_stays_so() -> None:
    assert exit_code_of(DataError("x")) == 2
    assert exit_code_of(CheckpointError("x")) == 2
    assert exit_code_of(caused_by(FileNotFoundError(errno.ENOENT, "no such file"))) == 2
    assert exit_code_of(caused_by(PermissionError(errno.EACCES, "not yours"))) == 2


def test_a_run_whose_last_state_is_not_saved_may_start_again() -> None:
    assert exit_code_of(NotSavedError("x")) == 74
