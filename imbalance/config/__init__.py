"""Configs: find and load files, apply overrides, check every value, and name the run directory."""
