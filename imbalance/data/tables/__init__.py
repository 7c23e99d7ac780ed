"""Tables: read columns, and encode columns as numbers."""
