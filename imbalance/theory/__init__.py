"""Limits of linear models under gradient descent, computed without training."""
