"""Load a user's own modules, which a config refers to as `my_module.py:MyLoss`."""

import functools
import importlib.util
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from imbalance.errors import BadInput


def user_module_file(name: str) -> str:
    """Return the file in a name such as `my_module.py:MyLoss`; "" for a name without a file, such as "poly"."""
    file, _, function = name.rpartition(":")
    return file if file.endswith(".py") and function else ""


class SourceLoader(SourceFileLoader):
    """Loader that writes no compiled file beside a module, because a module can be in a run directory."""

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Write nothing."""


@functools.cache
def load_user_module(file: str) -> dict[str, Callable[..., Any]]:
    """Import a user's module, and return its public functions and classes by name.

    Each process imports a file only once, so changes of the file have no effect on a run that has started.

    Args:
        file: absolute path of the module.

    Raises:
        BadInput: the file does not exist, or its code raises an error.
    """
    if not Path(file).is_file():
        raise BadInput(f"no file {file}; give the path of an existing .py file before the colon")
    name = f"own_{Path(file).stem}_{zlib.crc32(file.encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, file, loader=SourceLoader(name, file))
    assert spec is not None and spec.loader is not None  # never None for a file that ends in .py
    # `typing` looks up names of annotations in sys.modules
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise user_code_error(file, error) from error
    return {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("_")}


def user_code_error(file: str | Path, error: BaseException) -> BadInput:
    """Return a `BadInput` that says at which line of the user's file `error` was raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    line, text = frames[-1].lineno if frames else None, str(error)
    # A SyntaxError may also be in another file, which this file imports
    if isinstance(error, SyntaxError) and error.filename == str(file):
        line, text = error.lineno, error.msg
    place = f"{file}, line {line}" if line else str(file)
    hint = new_module_name(error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    return BadInput(f"{place}: {type(error).__name__}: {text}{hint}")


def new_module_name(name: str) -> str:
    """Return the end of a message about `name`, a module of an older version of this package: what to import instead.

    Return "" if no module of this package ends in the last part of `name`, such as `oracle` in `imbalance.theory.oracle`.
    """
    package = Path(__file__).parent.parent
    files = sorted(package.rglob(f"{name.rpartition('.')[2]}.py")) if name.startswith("imbalance.") else []
    modules = [".".join(("imbalance", *file.relative_to(package).with_suffix("").parts)) for file in files]
    return f"; import {' or '.join(modules)} instead" if modules else ""


def user_module_files(config: Mapping[str, Any]) -> list[Path]:
    """Return the files of the user's modules that `config` names, as in `my_module.py:MyLoss`.

    Raises:
        BadInput: two files in different folders have the same name, so that their copies in the run directory would
            overwrite each other.
    """
    files_by_name: dict[str, Path] = {}
    for file in sorted({Path(file) for value in _texts(config) if (file := user_module_file(value))}):
        other = files_by_name.setdefault(file.name, file)
        if other.resolve() != file.resolve():
            raise BadInput(
                f"config: {other} and {file} are two modules with the same file name, but a run keeps a copy of each in one "
                "folder; rename one of them"
            )
    return list(files_by_name.values())


def _texts(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield every text value in `config` and its nested sections."""
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _texts(value)
        elif isinstance(value, str):
            yield value
