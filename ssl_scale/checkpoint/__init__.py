"""Checkpoints as they lie on disk: their layout, reading them, and the work of people on them.

Nothing here knows a recipe, an engine or a process group, so it works wherever the files are. How
a run writes checkpoints, and takes its state back from one, is in ``train/checkpoint``.
"""
