"""Whole jobs: score texts, verify a model's numbers, convert its files."""
