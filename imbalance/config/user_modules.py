"""Load a user's own modules, which a config refers to as `my_module.py:MyLoss`."""

import importlib.util
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from imbalance.errors import BadInput, Diverged, LostPeer, is_out_of_memory
from imbalance.utils.read import read_bytes


def user_module_file(name: str) -> str:
    """Return the file in a name such as `my_module.py:MyLoss`; "" for a name without a file, such as "poly"."""
    file, _, function = name.rpartition(":")
    return file if file.endswith(".py") and function else ""


class CodeLoader(SourceFileLoader):
    """Loader that executes `code`, the content of `file`. It neither reads nor writes a compiled file beside the module.

    A compiled file can be older than the module. The folder of the module can be a run directory.
    """

    def __init__(self, name: str, file: str, code: bytes):
        super().__init__(name, file)
        self.code = code

    def get_code(self, fullname: str) -> CodeType:
        """Return the compiled code."""
        return self.source_to_code(self.code, self.path)


# The content, and the public functions and classes by name, of each module that this process has loaded, by absolute path.
_loaded: dict[str, tuple[bytes, dict[str, Callable[..., Any]]]] = {}


def load_user_module(file: str) -> dict[str, Callable[..., Any]]:
    """Import a user's module, and return its public functions and classes by name.

    A module stays loaded until `forget_changed_modules` finds that its file has changed. So changes of the file have no
    effect on a run that has started.

    Args:
        file: absolute path of the module.

    Raises:
        BadInput: the file does not exist, or its code raises an error.
    """
    if file in _loaded:
        return _loaded[file][1]
    if not Path(file).is_file():
        raise BadInput(f"no file {file}; give the path of an existing .py file before the colon")
    try:
        code = read_bytes(file)
        # The name depends on the code, so that objects of the code before a change can still be pickled.
        name = f"own_{Path(file).stem}_{zlib.crc32(file.encode() + code):08x}"
        spec = importlib.util.spec_from_file_location(name, file, loader=CodeLoader(name, file, code))
        assert spec is not None and spec.loader is not None  # never None for a file that ends in .py
        # `typing` looks up names of annotations in sys.modules
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise user_code_error(file, error) from error
    functions = {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("_")}
    _loaded[file] = code, functions
    return functions


def user_module_code(file: Path) -> bytes:
    """Return the content that a user's module had when this process loaded it; load it if that is still to be done.

    The file itself may have changed since.
    """
    key = str(file.resolve())
    load_user_module(key)
    return _loaded[key][0]


def forget_changed_modules(config: Mapping[str, Any]) -> None:
    """Forget the loaded modules that `config` names and whose files have changed or are gone, so that they are loaded again."""
    for key in {str(Path(file).resolve()) for value in _texts(config) if (file := user_module_file(value))}:
        if key in _loaded and not (Path(key).is_file() and read_bytes(key) == _loaded[key][0]):
            del _loaded[key]


@contextmanager
def user_code_errors(name: str = "") -> Iterator[None]:
    """Return a context manager that turns an error in a user's own module into a `BadInput` with its file and line.

    Out-of-memory errors pass unchanged, and so do the errors of this package that have a message for its users.

    Args:
        name: name of the function that the code inside calls. If it is in a user's module, such as `my_module.py:MyLoss`,
            every error counts as one of this module, also one of a call with arguments that the function does not take.
    """
    try:
        yield
    except (BadInput, Diverged, LostPeer):
        raise
    except (Exception, SystemExit) as error:
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__) if frame.filename in _loaded]
        if file := user_module_file(name):
            files.insert(0, str(Path(file).resolve()))
        if not files or is_out_of_memory(error):
            raise
        raise user_code_error(files[-1], error) from error


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
