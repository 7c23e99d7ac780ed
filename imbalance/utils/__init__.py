"""Helpers for files, locks, memory, seeds and output. From imbalance they import only `imbalance.errors`."""
