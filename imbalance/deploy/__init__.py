"""Use trained models: load them, predict, export them, and extract their features."""
