"""Compare the speed of the project with bare PyTorch loops and other baselines."""
