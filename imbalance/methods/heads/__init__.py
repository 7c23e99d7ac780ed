"""Heads: the last layer after training, one file a family."""
