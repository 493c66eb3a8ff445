"""Layers: attention, blocks, positions, patching. Nothing here knows of views, losses or recipes.

Every layer that owns parameters takes and returns tensors and initialises itself in its own
constructor: under ZeRO-3 parameters are partitioned as soon as that ends, and gathered only while
their module runs. A layer's parameter is used through the layer; a shared one through `Tied`.
"""
