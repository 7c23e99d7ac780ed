"""Objectives: the scalar that a method minimises, one file a family."""
