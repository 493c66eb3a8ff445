"""Recipes, YAML only; installed as a package so that they are found by name from any folder."""
