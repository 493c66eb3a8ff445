"""A module that cannot be imported."""

RATE = 1 / 0
