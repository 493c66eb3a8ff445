"""Losses, one a file, supervised ones included. No collectives, no encoders, no recipes."""
