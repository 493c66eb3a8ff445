"""Duplicates: which samples are copies of one another, and which of each group stays."""
