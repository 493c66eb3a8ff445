"""Selections: which samples are kept, and for each of the others the reason why not."""
