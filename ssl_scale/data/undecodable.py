"""The error of a bad sample; below all fields, so that what they share can raise it."""

from ssl_scale.errors import DataError


class UndecodableError(DataError):
    """A member's bytes are not what its field must be: the sample is bad, not the disk."""
