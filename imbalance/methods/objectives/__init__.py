"""Objectives: the scalar that training minimises, with one file for each family."""
