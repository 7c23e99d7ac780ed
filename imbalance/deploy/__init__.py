"""Deployment: load, predict, export, and extract features."""
