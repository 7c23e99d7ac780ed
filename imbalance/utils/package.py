"""Version and root folder of the package, and the environment of processes that import it."""

import os
from pathlib import Path

__version__ = "0.1.0"
ROOT = Path(__file__).parent.parent.parent  # the top folder of a clone, or site-packages


def process_environment(**variables: str) -> dict[str, str]:
    """Return the environment for a new process that can import this package, with further `variables`.

    ROOT comes before the paths that PYTHONPATH has, because some machines list all their packages there.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | variables
