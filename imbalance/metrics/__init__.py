"""Metrics: counts and scores of predictions, intervals, aggregates over tasks, selection rules, warnings."""
