"""An environment with the fewest packages that the program needs: no wandb, Optuna, matplotlib or rich."""

import re
import sys
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

LEAST = (
    "torch", "torchvision", "accelerate", "ml-collections", "absl-py", "numpy", "scipy", "pydantic", "scikit-learn",
    "filelock", "safetensors",
)  # fmt: skip


def with_requirements(names: tuple[str, ...]) -> set[str]:
    """Return the names of installed packages, and of all that they require; extras and markers of extras do not count."""
    found, left = set(), list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            requirements = distribution(name).requires or []
        except PackageNotFoundError:  # for another system, or another Python
            continue
        found.add(name)
        left += [re.match(r"[\w.-]+", text)[0] for text in requirements if "extra ==" not in text]
    return found


def make_least(folder: Path) -> Path:
    """Make a virtual environment in `folder` with links to the packages of LEAST, and return its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in with_requirements(LEAST):
        installed = distribution(name)
        for top in {path.parts[0] for path in installed.files if path.parts[0] not in ("..", "__pycache__")}:
            source = Path(str(installed.locate_file(top)))
            if not (packages / top).exists() and source.exists():
                (packages / top).symlink_to(source)
    return folder / "bin" / "python"


if __name__ == "__main__":
    print(make_least(Path(sys.argv[1])))
