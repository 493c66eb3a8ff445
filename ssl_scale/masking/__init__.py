"""Mask samplers: which tokens of a view are hidden."""
