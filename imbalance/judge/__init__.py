"""From predictions to counts, and from counts to metrics."""
