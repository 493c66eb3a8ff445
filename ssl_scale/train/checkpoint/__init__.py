"""Checkpoints of sharded state: layout on disk, fragments of tensors, saving and loading."""
