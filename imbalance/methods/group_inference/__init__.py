"""Inference of groups for data without group labels, with one file for each method."""
