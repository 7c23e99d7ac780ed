"""Load a user's own modules, which a config refers to as `my_module.py:MyLoss`."""

import functools
import importlib.util
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from imbalance.errors import BadInput


def user_module_file(name: str) -> str:
    """Return the file part of a name such as `my_module.py:MyLoss`; "" for the name of a function of this package."""
    file, _, function = name.rpartition(":")
    return file if file.endswith(".py") and function else ""


@functools.cache
def load_user_module(file: str) -> dict[str, Callable[..., Any]]:
    """Run a user's module, and return its public functions and classes by name.

    Each process runs a module only once, so that a run under way keeps the code that it started with.

    Args:
        file: absolute path of the module.

    Raises:
        BadInput: the file does not exist, or its code raises an error.
    """
    if not Path(file).is_file():
        raise BadInput(f"no file {file}")
    name = f"own_{Path(file).stem}_{zlib.crc32(file.encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None  # never None for a file that ends in .py
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # typing looks up the names in annotations there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise user_code_error(file, error) from error
    return {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("_")}


def user_code_error(file: str | Path, error: Exception) -> BadInput:
    """Return an error whose message names the line of the user's file at which `error` was raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    place = f"{file}, line {line}" if line else str(file)
    hint = new_module_name(error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    return BadInput(f"{place}: {type(error).__name__}: {getattr(error, 'msg', None) or error}{hint}")


def new_module_name(name: str) -> str:
    """Return the end of a message that says where the module `name` of this package is now; "" if there is none."""
    package = Path(__file__).parent.parent
    files = sorted(package.rglob(f"{name.rpartition('.')[2]}.py")) if name.startswith("imbalance.") else []
    modules = [".".join(("imbalance", *file.relative_to(package).with_suffix("").parts)) for file in files]
    return f"; import {' or '.join(modules)} instead" if modules else ""


def user_module_files(config: Mapping[str, Any]) -> list[Path]:
    """Return the files of the user's modules that sections of `config` name.

    Raises:
        BadInput: two of the files have the same name, and would be one file in the run directory.
    """
    files_by_name: dict[str, Path] = {}
    for file in sorted({Path(file) for value in _texts(config) if (file := user_module_file(value))}):
        other = files_by_name.setdefault(file.name, file)
        if other.resolve() != file.resolve():
            raise BadInput(
                f"config: {other} and {file} are two modules with the same file name, of which a run keeps a copy; rename one of them"
            )
    return list(files_by_name.values())


def _texts(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield every value of every section that is a text."""
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _texts(value)
        elif isinstance(value, str):
            yield value
