"""Group inference: groups from data without group labels, one file a method."""
