"""Claims and the runs that show them: what `imbalance sweep`, `compare`, `reproduce` and others call (see `imbalance --help`)."""
