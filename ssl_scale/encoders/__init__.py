"""Encoders, one family a file. No losses here, and no reading of files."""
