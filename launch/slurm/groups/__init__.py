"""Runs that belong together: chains, whose links start from those before, and sweeps."""
