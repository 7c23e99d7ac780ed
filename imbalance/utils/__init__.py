"""Files, locks, memory, seeds and output: no part of imbalance is imported here."""
