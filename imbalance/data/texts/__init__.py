"""Texts: corpora, tokenizers, and stores of tokens."""
