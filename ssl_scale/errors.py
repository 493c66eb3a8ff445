"""Errors that users see: each says what a thing must be, what it is, and where.

Commands print the message alone and exit with `exit_code`; a traceback appears only with
``--debug``. A wrong argument inside Python stays a `ValueError` or `TypeError`.
"""

import errno

IO_ERROR = 74  # EX_IOERR: to start again, once disk or network is well, may help
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)


class SslScaleError(Exception):
    """Something the user can mend."""

    exit_code = 2


class RecipeError(SslScaleError):
    """A recipe, an override or a combination of settings cannot work."""


class UnboundDataError(SslScaleError):
    """The recipe is sound, but a data set it names by role has no path yet."""

    exit_code = 3


class DataError(SslScaleError):
    """Shards, indexes or samples are missing, broken or not what the recipe says."""


class CheckpointError(SslScaleError):
    """A checkpoint is incomplete, damaged or belongs to another recipe."""


class NotSavedError(CheckpointError):
    """A run is at its end, and what it has become could not be written."""

    exit_code = IO_ERROR


def exit_code_of(error: SslScaleError) -> int:
    """The exit code for an error: that of its class, unless a disk or network was behind it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _PASSING:
            return IO_ERROR
        cause = cause.__cause__
    return error.exit_code
