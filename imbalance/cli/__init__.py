"""The command line: commands, help, completion and listings."""
