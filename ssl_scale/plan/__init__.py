"""What a run will cost, from its recipe alone: parameters, bytes a rank, operations, hours."""
