"""The packages of other people's networks, which are extras: imported when a config asks for them."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from imbalance.errors import BadInput
from imbalance.utils.torchvision_import import import_torchvision


def library(name: str, extra: str, key: str = "config.model.name") -> ModuleType:
    """Import it, after torchvision, which they all import where it is, and which may need help beside this torch.

    Args:
        extra: of this package, that installs it.
        key: of the config, that asks for it.
    """
    with suppress(ImportError):  # transformers' texts can do without; what cannot says so
        import_torchvision()
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BadInput(f"{key}: needs {name}: pip install 'imbalance[{extra}]'") from None


@contextmanager
def quiet(transformers: ModuleType) -> Iterator[None]:
    """Without its bars, and its report on weights that are not taken, such as those of CLIP's text side."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def from_transformers(kind: str, name: str, key: str) -> Any:
    """What `transformers.<kind>.from_pretrained(name)` returns, for the config's `key`; no code of the weights is run.

    Raises:
        BadInput: the package is missing, or there is no such thing here or on the hub.
    """
    transformers = library("transformers", "text", key)
    try:
        with quiet(transformers):
            return getattr(transformers, kind).from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # of a missing, damaged or unknown model it raises nearly all there is
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadInput(f"{key}: {name!r} cannot be loaded: {reason}") from None
