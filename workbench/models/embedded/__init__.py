"""Weights that come with the package, each with a .json that says how it was made."""
