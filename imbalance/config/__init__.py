"""Configs: files, overrides, the check of every value, and the run directory that a config names."""
