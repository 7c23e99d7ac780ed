"""Find the config file that a name stands for. This module imports little, so that a misspelt name is reported at once."""

import difflib
import errno
from pathlib import Path

from imbalance.config.renamed import RENAMED
from imbalance.errors import BadInput

# imbalance/configs is a link to configs/ at the top of the repository, so that a wheel has the files too.
CONFIGS = (Path(__file__).parent.parent / "configs").resolve()


def config_file(name: str | Path) -> Path:
    """Return the path of a config file.

    Args:
        name: the path itself, or the name of a file in configs/ without .py.

    Raises:
        BadInput: the file does not exist; the message suggests names with a similar spelling.
    """
    if not str(name):
        raise BadInput("config: empty; name a file, or a config that `imbalance list configs` shows")
    path = Path(name)
    if _exists(path, "file") and path.suffix in (".py", ".json"):
        return path
    # A file directly in configs/ comes before those of its folders, which need not be listed then.
    if path.name == str(name) and _exists(direct := CONFIGS / f"{name}.py", "file"):
        return direct
    files_by_name = config_files_by_name()
    if str(name) in files_by_name:
        return files_by_name[str(name)]
    if _exists(path, "file", "dir"):
        raise BadInput(f"config: {name} is no config; name a .py or .json file")
    if path.stem in RENAMED:
        new, *overrides = RENAMED[path.stem].split()
        values = " ".join(f"config.{override}" for override in overrides)
        raise BadInput(f"config: {name} is no config any more; use {new} with {values}")
    if path.stem in files_by_name and path.suffix in (".py", ".json"):
        raise BadInput(f"config: no file {name}; for the config of this name in configs/, type {path.stem}")
    near = difflib.get_close_matches(path.stem, files_by_name)
    hint = f"did you mean {' or '.join(near)}?" if near else "`imbalance list configs` shows all"
    raise BadInput(f"config: no config {name}; {hint}")


def config_files_by_name() -> dict[str, Path]:
    """Return the path of each config file in configs/ and its subfolders, by name without .py.

    If two files have the same name, return the one in fewer subfolders.
    """
    deepest_first = sorted(CONFIGS.rglob("*.py"), key=lambda path: (-len(path.parts), path))
    files = {path.stem: path for path in deepest_first}  # a later file replaces an earlier one of the same name
    return dict(sorted(files.items()))


def _exists(path: Path, *kinds: str) -> bool:
    try:
        return any(getattr(path, f"is_{kind}")() for kind in kinds)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # a misspelt name, to which the caller knows similar ones
            return False
        raise BadInput(f"config: {path}: {error.strerror}; name a file that can be read") from None
