"""Striking a copy of a run at random moments, and comparing what both have become."""
