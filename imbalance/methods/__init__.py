"""Methods: which examples an epoch draws, how much each counts, what is minimised, and what becomes of the last layer."""
