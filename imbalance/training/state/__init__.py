"""Training state: checkpoints, progress, the check for non-finite values, and provenance."""
