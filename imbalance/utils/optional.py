"""Import packages that need not be installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from imbalance.errors import BadInput


@contextmanager
def optional(*packages: str, message: str) -> Iterator[None]:
    """Return a context manager for the import of optional packages.

    Args:
        message: text of the error if a package is not installed: what needs the package, and what to type.

    Raises:
        BadInput: a package is not installed; or it is installed, but its own import fails.
    """
    try:
        yield
    except ImportError as error:
        # A package can also lack one of its own dependencies, and then installing the package again may change nothing.
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in packages:
            raise BadInput(message) from None
        raise BadInput(
            f"{' or '.join(packages)} is installed, but cannot be imported: {error}; mend that first"
        ) from None
