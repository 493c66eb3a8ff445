"""How a run's sharded state becomes a checkpoint, and comes back from one."""
