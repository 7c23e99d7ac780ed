"""A run's config.json as a config file: what main.py hands to absl for `--config=<run directory>/config.json`."""

from ml_collections import ConfigDict

from imbalance.config import load


def get_config(path: str) -> ConfigDict:
    return load(path)
