"""Several processes that train one run: calls in which all take part, heartbeats, and signals to stop."""
