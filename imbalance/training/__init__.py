"""The loop, and all that keeps a run: nothing is lost, many processes, many runs at once."""
