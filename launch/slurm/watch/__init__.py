"""What became of runs: their logs, how far they are, why they stopped, told in words and tables."""
