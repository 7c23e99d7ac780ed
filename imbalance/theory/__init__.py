"""Limits of linear models, computed without training."""
