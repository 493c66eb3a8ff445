"""Step programs: how forwards, backwards and optimizer steps are ordered within a step."""
