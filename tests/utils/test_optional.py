"""Optional packages: one that is missing is named with what to install, one that is broken with its own error."""

import importlib

import pytest

from imbalance.errors import BadInput
from imbalance.utils.optional import optional


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "^figures need it$"),
        ("import absent_dependency", "^broken_package is installed, but cannot be imported: No module named 'absent_dependency'"),
        ("from math import absent", "^broken_package is installed, but cannot be imported: cannot import name 'absent'"),
    ],
)  # fmt: skip
def test_a_missing_package_and_one_that_cannot_be_imported_are_told_apart(tmp_path, monkeypatch, content, message):
    """Installing a package again does not help if it lacks one of its own dependencies."""
    if content:
        (tmp_path / "broken_package.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadInput, match=message), optional("broken_package", message="figures need it"):
        importlib.import_module("broken_package")
