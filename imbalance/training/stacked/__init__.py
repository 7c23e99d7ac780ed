"""Stacked runs: many small models trained as one batched model."""
