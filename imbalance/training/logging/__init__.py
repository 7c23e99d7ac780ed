"""Logging: the files of a run, trackers, and the console."""
