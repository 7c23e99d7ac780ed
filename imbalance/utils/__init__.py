"""Files, locks, memory, seeds and output. Of imbalance, these modules import `imbalance.errors` alone."""
