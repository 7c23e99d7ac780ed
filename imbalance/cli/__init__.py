"""Command line: commands, help, completion and listings."""
