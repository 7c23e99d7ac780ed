"""Several processes: collectives, heartbeats and interrupts."""
