"""Tables: reading columns, and encoding columns as numbers."""
