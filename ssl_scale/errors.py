"""Errors that users see: each says what a thing must be, what it is, and where.

Commands print the message alone and exit with `exit_code`; a traceback appears only with
``--debug``. A wrong argument inside Python stays a `ValueError` or `TypeError`.
"""


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
