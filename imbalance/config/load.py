"""Config files: find, read, and convert those of older versions."""

import ast
import difflib
import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from imbalance.config.renamed import instead_of
from imbalance.config.schema import (
    flatten,
    of_own_code,
    own_module,
)
from imbalance.errors import BadInput

CONFIGS = (
    Path(__file__).parent.parent / "configs"
).resolve()  # a link to the folder at the top, which wheels have here


def load(path: str | Path) -> ConfigDict:
    """What `get_config()` of a config file returns, or what the config.json of a run directory holds."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            values = json.loads(text)
            if not isinstance(values, dict):
                raise ValueError("it holds no object")
            return ConfigDict(_with_saved_modules(_with_tuples(as_now(values)), path.parent / "modules"))
        top_level = ast.parse(text).body
    except OSError as error:
        raise BadInput(f"--config: cannot read {path}: {error.strerror}") from None
    except SyntaxError as error:
        raise BadInput(f"--config: {path}, line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # the latter two of what is nested without end
        raise BadInput(f"--config: {path} is no config: {error}") from None
    if not any("get_config" in _names(statement) for statement in top_level):  # before it is run: it may be any program
        raise BadInput(f"--config: {path} is no config: it has no get_config()")
    try:
        config = runpy.run_path(str(path))["get_config"]()
    except Exception as error:
        raise of_own_code(path, error) from error
    if not isinstance(config, ConfigDict):
        raise BadInput(f"--config: get_config() of {path} returns {type(config).__name__}, not a ConfigDict")
    return config


def as_now(saved: dict[str, Any]) -> dict[str, Any]:
    """What config.json of an older version says, as this one says it: what it could not ask for, it has not done.

    `trainer.compile` was true or false, and data in memory had the name "given".
    """
    trainer, optim = saved.get("trainer"), saved.get("optim")
    if not isinstance(trainer, dict) or not isinstance(optim, dict):
        return saved  # no config, as will be said
    decayed = {} if own_module(str(optim.get("name"))) else {"decayed": "all"}
    trainer = {"clip_norm": 0.0, "tf32": "convolutions", "images_on_device": False} | trainer
    if isinstance(trainer.get("compile"), bool):
        trainer["compile"] = "default" if trainer["compile"] else "no"
    filled = {"trainer": trainer, "optim": decayed | optim}
    if saved.get("data") == {"name": "given"}:
        filled["data"] = {"name": "in_memory"}
    return {"groups": {"name": "data"}} | saved | filled


def _names(statement: ast.stmt) -> set[str]:
    """What a statement at the top of a file defines, where it can be seen."""
    if isinstance(statement, ast.FunctionDef):
        return {statement.name}
    if isinstance(statement, ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def config_file(name: str | Path) -> Path:
    """The file that `name` names: a path, or the name of one in configs/ without the .py.

    Raises:
        BadInput: there is no such file; the message has the names that are nearest.
    """
    if not str(name):
        raise BadInput("--config: empty; name a file, or a config that `imbalance list configs` shows")
    given, there = Path(name), {path.stem: path for path in sorted(CONFIGS.rglob("*.py"))}
    if _is(given, "file") and given.suffix in (".py", ".json"):
        return given
    if str(name) in there:
        return there[str(name)]
    if _is(given, "file", "dir"):
        raise BadInput(f"--config: {name} is no config: it must be a .py or .json file")
    if flags := instead_of(given.stem):
        raise BadInput(f"--config: {name} is no config any more; type {flags} instead")
    near = difflib.get_close_matches(given.stem, there, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise BadInput(f"--config: no config {name}{hint}" + ("" if near else "; `imbalance list configs` shows all"))


def _is(path: Path, *kinds: str) -> bool:
    try:
        return any(getattr(path, f"is_{kind}")() for kind in kinds)
    except OSError:  # a name that is too long
        return False


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _with_saved_modules(value: Any, folder: Path) -> Any:
    """`value` with the copies of modules of one's own that a run has kept, where the modules themselves are gone."""
    if isinstance(value, dict):
        return {key: _with_saved_modules(item, folder) for key, item in value.items()}
    if isinstance(value, str) and (file := own_module(value)):
        saved = folder / Path(file).name
        return f"{saved}:{value.rpartition(':')[2]}" if saved.is_file() and not Path(file).is_file() else value
    return value


def own_modules(config: Mapping[str, Any]) -> list[Path]:
    """The files of one's own that sections of `config` name.

    Raises:
        BadInput: two of them have the same name, which would be one file in the run directory.
    """
    files = {own_module(value) for value in flatten(config).values() if isinstance(value, str)} - {""}
    by_name: dict[str, Path] = {}
    for file in sorted(map(Path, files)):
        if by_name.setdefault(file.name, file).resolve() != file.resolve():
            raise BadInput(f"config: {by_name[file.name]} and {file} are two modules of one name; rename one of them")
    return list(by_name.values())
