"""Benchmarks, one area a file; see run.py."""
