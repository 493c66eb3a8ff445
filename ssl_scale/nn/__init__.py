"""Layers: attention, blocks, positions, patching. Nothing here knows of views, losses or recipes."""
