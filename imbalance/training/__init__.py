"""Training: the loop, the state of a run, many processes, stacked runs, logging."""
