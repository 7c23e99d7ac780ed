"""Heads: functions that replace the last layer after training, with one file for each family."""
