"""Metrics: counts, scores, intervals, selection rules, and warnings about unreliable values."""
