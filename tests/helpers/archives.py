"""Marks for tests that unpack archives."""

import tarfile

import pytest

# Python 3.10.12, 3.11.4 and later can refuse files that would leave the folder; with an older one nothing is unpacked.
unpacks = pytest.mark.skipif(
    not hasattr(tarfile, "data_filter"), reason="this Python has no safe way to unpack archives"
)
