"""Texts: list them, learn or load tokenizers, store tokens."""
