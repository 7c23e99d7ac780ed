"""Measure the speed of the project against bare PyTorch loops and other baselines."""
