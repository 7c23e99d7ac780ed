"""Stacked runs: train many small models as one batched model."""
