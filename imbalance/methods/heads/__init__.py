"""Heads: replacements of the last layer after training, with one file for each family."""
