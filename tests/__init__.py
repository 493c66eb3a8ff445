"""Tests, in folders named like the rooms they test; see conftest.py for what holds for all."""
