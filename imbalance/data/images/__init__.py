"""Images: list files, decode them, store the pixels, normalise and augment batches."""
